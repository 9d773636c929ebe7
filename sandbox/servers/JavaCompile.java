import com.sun.source.tree.ClassTree;
import com.sun.source.tree.Tree;
import com.sun.source.util.JavacTask;
import com.sun.source.util.TaskEvent;
import com.sun.source.util.TaskListener;
import java.io.ByteArrayOutputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.StringWriter;
import java.net.URI;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.lang.model.element.Modifier;
import javax.tools.FileObject;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileManager;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/**
 * A warm javac: compiles one source after the other and runs none of them. Sources and classes stay in memory, so that it
 * needs no file of a program's; a source has the name that its public type asks for.
 *
 * Arguments: javac's own options. Standard input: length and bytes of the file's name, then of its source. Standard output:
 * javac's exit code, length and bytes of its messages, the number of classes, then of each the lengths and bytes of name and
 * content. All numbers are 32 bit, big endian.
 */
public class JavaCompile {
    public static void main(String[] options) throws IOException {
        DataInputStream in = new DataInputStream(System.in);
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out));
        System.setOut(System.err); // what else is printed is no answer
        JavaCompiler javac = ToolProvider.getSystemJavaCompiler();
        StandardJavaFileManager files = javac.getStandardFileManager(null, null, StandardCharsets.UTF_8);
        List<String> arguments = new ArrayList<>(Arrays.asList(options));
        arguments.add("-proc:none"); // annotation processors would be programs that run
        while (true) {
            int length;
            try {
                length = in.readInt();
            } catch (java.io.EOFException end) {
                return;
            }
            String name = new String(in.readNBytes(length), StandardCharsets.UTF_8);
            String source = new String(in.readNBytes(in.readInt()), StandardCharsets.UTF_8);
            StringWriter said = new StringWriter();
            Memory memory = new Memory(files);
            Source file = new Source(name, source);
            JavacTask task = (JavacTask) javac.getTask(said, memory, null, arguments, null, List.of(file));
            task.addTaskListener(file);
            boolean fine = task.call();
            answer(out, fine ? 0 : 1, said.toString(), fine ? memory.classes : Map.of());
        }
    }

    static void answer(DataOutputStream out, int code, String said, Map<String, ByteArrayOutputStream> classes)
            throws IOException {
        out.writeInt(code);
        byte[] text = said.getBytes(StandardCharsets.UTF_8);
        out.writeInt(text.length);
        out.write(text);
        out.writeInt(classes.size());
        for (Map.Entry<String, ByteArrayOutputStream> entry : classes.entrySet()) {
            byte[] name = entry.getKey().getBytes(StandardCharsets.UTF_8);
            out.writeInt(name.length);
            out.write(name);
            out.writeInt(entry.getValue().size());
            entry.getValue().writeTo(out);
        }
        out.flush();
    }

    static class Source extends SimpleJavaFileObject implements TaskListener {
        private final String text;
        private URI place; // as javac is told

        Source(String name, String text) {
            super(at(name), Kind.SOURCE);
            this.text = text;
        }

        /** Called when it is parsed and its name not yet looked at. */
        @Override
        public void finished(TaskEvent event) {
            if (event.getKind() != TaskEvent.Kind.PARSE) {
                return;
            }
            for (Tree type : event.getCompilationUnit().getTypeDecls()) {
                if (type instanceof ClassTree && ((ClassTree) type).getModifiers().getFlags().contains(Modifier.PUBLIC)) {
                    place = at(((ClassTree) type).getSimpleName() + ".java");
                    return; // a second one is an error
                }
            }
        }

        @Override
        public URI toUri() {
            return place == null ? uri : place;
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return text;
        }

        private static URI at(String name) {
            try {
                return new URI("string", null, "/" + name, null);
            } catch (URISyntaxException impossible) {
                throw new IllegalArgumentException(impossible);
            }
        }
    }

    static class Memory extends ForwardingJavaFileManager<JavaFileManager> {
        final Map<String, ByteArrayOutputStream> classes = new LinkedHashMap<>();

        Memory(JavaFileManager files) {
            super(files);
        }

        @Override
        public JavaFileObject getJavaFileForOutput(Location where, String name, JavaFileObject.Kind kind, FileObject source) {
            ByteArrayOutputStream content = new ByteArrayOutputStream();
            classes.put(name.replace('.', '/') + kind.extension, content);
            return new SimpleJavaFileObject(URI.create("string:///" + name + kind.extension), kind) {
                @Override
                public OutputStream openOutputStream() {
                    return content;
                }
            };
        }
    }
}

import java.io.ByteArrayOutputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.StringWriter;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
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
 * needs no file of a program's.
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
            boolean fine = javac.getTask(said, memory, null, arguments, null, List.of(new Source(name, source))).call();
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

    static class Source extends SimpleJavaFileObject {
        private final String text;

        Source(String name, String text) {
            super(URI.create("string:///" + name), Kind.SOURCE);
            this.text = text;
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return text;
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

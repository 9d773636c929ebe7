using System;
using System.Collections.Generic;
using System.IO;
using System.Text;

/// A warm mcs: compiles one source after the other and runs none of them. Arguments: mcs's own options. Standard input and
/// output: as JavaCompile.java has them, but that before a file's name, and a blank, is one more option. mcs reads and writes files only, so that it keeps them in a directory of its own,
/// which is there while it compiles.
public class CsCompile {
    static Stream input = Console.OpenStandardInput(), output = new BufferedStream(Console.OpenStandardOutput());

    public static void Main(string[] options) {
        Console.SetOut(TextWriter.Null); // what else is printed is no answer
        while (true) {
            byte[] name = Read();
            if (name == null) return;
            string[] parts = Encoding.UTF8.GetString(name).Split(' ');
            byte[] source = Read();
            string directory = Path.Combine(Path.GetTempPath(), Guid.NewGuid().ToString());
            Directory.CreateDirectory(directory);
            try {
                Compile(options, parts[0], Path.Combine(directory, parts[1]), source);
            } finally {
                Directory.Delete(directory, true);
            }
            output.Flush();
        }
    }

    static void Compile(string[] options, string option, string file, byte[] source) {
        File.WriteAllBytes(file, source);
        string made = Path.ChangeExtension(file, ".exe");
        var arguments = new List<string>(options) { option, "-out:" + made, file };
        var said = new StringWriter();
        bool fine = Mono.CSharp.CompilerCallableEntryPoint.InvokeCompiler(arguments.ToArray(), said);
        Write(fine ? 0 : 1);
        Write(Encoding.UTF8.GetBytes(said.ToString().Replace(Path.GetDirectoryName(file) + "/", "")));
        Write(fine ? 1 : 0);
        if (!fine) return;
        Write(Encoding.UTF8.GetBytes(Path.GetFileName(made)));
        Write(File.ReadAllBytes(made));
    }

    static byte[] Read() {
        byte[] length = Exactly(4);
        if (length == null) return null;
        return Exactly(length[0] << 24 | length[1] << 16 | length[2] << 8 | length[3]);
    }

    static byte[] Exactly(int count) {
        byte[] data = new byte[count];
        for (int at = 0, read; at < count; at += read) {
            read = input.Read(data, at, count - at);
            if (read == 0) return null;
        }
        return data;
    }

    static void Write(int number) {
        output.Write(new[] { (byte) (number >> 24), (byte) (number >> 16), (byte) (number >> 8), (byte) number }, 0, 4);
    }

    static void Write(byte[] data) {
        Write(data.Length);
        output.Write(data, 0, data.Length);
    }
}

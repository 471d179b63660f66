using System.Diagnostics;

namespace MicroVm.Oci.Tests.Support;

/// <summary>A C program compiled with the system's gcc: the kernel's own headers as an oracle.</summary>
internal static class CProgram
{
    /// <summary>Compiles and runs <paramref name="source"/>; returns its exit status and output.</summary>
    public static (int Status, string Output) Run(string source, params string[] args)
    {
        Skip.IfNot(File.Exists("/usr/bin/gcc"), "gcc is not installed: nothing to compare with the kernel's headers");
        string dir = Directory.CreateTempSubdirectory("microvm-oci-").FullName;
        try
        {
            string file = Path.Combine(dir, "program.c");
            File.WriteAllText(file, source);
            (int status, string output) = Execute("/usr/bin/gcc", ["-O1", "-w", "-o", Path.Combine(dir, "program"), file]);
            Assert.True(status == 0, output);
            return Execute(Path.Combine(dir, "program"), args);
        }
        finally
        {
            Directory.Delete(dir, recursive: true);
        }
    }

    /// <summary>Values of C constant expressions.</summary>
    public static Dictionary<string, ulong> Values(IEnumerable<string> includes, IEnumerable<string> expressions)
    {
        string source = string.Concat(includes.Select(i => $"#include <{i}>\n")) + "#include <stdio.h>\nint main(void) {\n"
            + string.Concat(expressions.Select(e => $"printf(\"{e} %llu\\n\", (unsigned long long)({e}));\n")) + "return 0; }\n";
        (int status, string output) = Run(source);
        Assert.Equal(0, status);
        return output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(l => l.Split(' '))
            .ToDictionary(p => p[0], p => ulong.Parse(p[1], System.Globalization.CultureInfo.InvariantCulture));
    }

    /// <summary>Runs a program to its end.</summary>
    public static (int Status, string Output) Execute(string file, IReadOnlyList<string> args, string? directory = null)
    {
        ProcessStartInfo start = new(file, args) { RedirectStandardOutput = true, RedirectStandardError = true };
        if (directory is not null)
        {
            start.WorkingDirectory = directory;
        }

        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + error.Result);
    }
}

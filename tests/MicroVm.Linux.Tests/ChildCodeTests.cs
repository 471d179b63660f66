using System.Diagnostics;
using MicroVm.Linux.Child;
using Xunit;

namespace MicroVm.Linux.Tests;

public class ChildCodeTests
{
    [SkippableFact]
    public void The_bytes_are_those_of_child_S()
    {
        string source = Path.Combine(RepositoryRoot(), "src", "MicroVm.Linux", "Child", "child.S");
        string directory = Directory.CreateTempSubdirectory().FullName;
        try
        {
            string binary = Path.Combine(directory, "child.bin");
            string script = $"gcc -c '{source}' -o '{directory}/child.o' && objcopy -O binary -j .text '{directory}/child.o' '{binary}'";
            using System.Diagnostics.Process sh = System.Diagnostics.Process.Start("/bin/sh", ["-c", $"command -v gcc objcopy >/dev/null || exit 77; {script}"]);
            sh.WaitForExit();
            Skip.If(sh.ExitCode == 77, "gcc or objcopy is not installed: the child's machine code was NOT compared with its source");
            Assert.Equal(0, sh.ExitCode);
            Assert.Equal(File.ReadAllBytes(binary), ChildCode.Bytes.ToArray());
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public unsafe void A_step_has_the_layout_that_the_code_expects()
    {
        ChildStep step = default;
        byte* p = (byte*)&step;
        Assert.Equal(72, sizeof(ChildStep));
        Assert.Equal(8, (byte*)step.Arguments - p);
        Assert.Equal(56, (byte*)&step.Store - p);
        Assert.Equal(64, (byte*)&step.Id - p);
        Assert.Equal(68, (byte*)&step.Mode - p);
    }

    [Fact]
    public unsafe void A_program_may_have_thousands_of_steps()
    {
        const int count = 20_000;
        using ChildProgram program = new(reportFd: 0, moreSteps: count);
        ChildStep* last = null;
        for (int i = 0; i < count; i++)
        {
            last = program.Add((uint)i, StepMode.Ignore, 0);
        }

        nint text = program.String("after");
        Assert.Equal(count - 1, last - program.Steps);
        Assert.True(text >= (nint)(last + 1), "the steps lie over the data");
        Assert.Equal("after", System.Runtime.InteropServices.Marshal.PtrToStringUTF8(text));
    }

    private static string RepositoryRoot()
    {
        string directory = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(directory, "MicroVm.sln")))
        {
            directory = Path.GetDirectoryName(directory)!;
        }

        return directory;
    }
}

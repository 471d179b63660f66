using MicroVm.Oci.Config;
using MicroVm.Sandbox.Templates;

namespace MicroVm.Sandbox.Tests.Templates;

public sealed class TrialBundleTests
{
    [Fact]
    public void The_bundle_runs_one_program_that_is_a_whole_executable()
    {
        using TempFolder folder = new();
        (Spec spec, string rootfs) = TrialBundle.Make(Path.Combine(folder.Path, "trial"));
        Assert.Equal(["/trial"], spec.Process!.Args);
        Assert.False(spec.Process.Terminal);
        string program = Path.Combine(rootfs, "trial");
        Assert.True(File.GetUnixFileMode(program).HasFlag(UnixFileMode.OtherExecute | UnixFileMode.OtherRead));
        byte[] bytes = File.ReadAllBytes(program);

        // p_filesz and p_memsz of the one program header (elf(5)), and the entry behind it. That it runs, every template shows.
        Assert.Equal((bytes.Length, bytes.Length), (BitConverter.ToInt64(bytes, 96), BitConverter.ToInt64(bytes, 104)));
        Assert.Equal(64 + 56, BitConverter.ToInt64(bytes, 24) - BitConverter.ToInt64(bytes, 80));
    }
}

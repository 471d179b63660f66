using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>What was written through a mapping is in the file, whatever becomes of who wrote it (mmap(2)).</summary>
public sealed class MappedWritesTests
{
    private const int Pages = 64;
    private const string Script =
        "for f in root vol; do dd if=/dev/zero of=/$f/f bs=4096 count=64 2>/dev/null; map-probe hold /$f/f Q >/tmp/$f & done; " +
        "until [ -s /tmp/root ] && [ -s /tmp/vol ]; do sleep 0.05; done; echo all; sleep 300";

    [SkippableTheory]
    [InlineData("delete")]
    [InlineData("vmm")]
    public void TheyOutliveTheContainerAndTheVmm(string end)
    {
        Installation.RequireRuntime();
        Skip.If(end == "vmm" && !Installation.IsMicroVm, "only microvm has a VMM");
        string folder = Directory.CreateTempSubdirectory("microvm-mapped-").FullName;
        try
        {
            using Bundle bundle = Bundle.Create(Script);
            bundle.AddGuestProgram("map-probe");
            bundle.AddMount("/vol", folder, "bind", "rbind", "rw");
            using DetachedContainer container = new(bundle);
            container.Create().EnsureSuccess();
            container.Call("start").EnsureSuccess();
            container.WaitForOutput("all");
            if (end == "vmm")
            {
                _ = Libc.kill(container.Vmm, Libc.SIGKILL);
            }

            container.Call("delete", "--force").EnsureSuccess();
            Assert.Equal(Pages, Count(Path.Combine(folder, "f")));
            Assert.Equal(Pages, Count(Path.Combine(bundle.Rootfs, "root", "f")));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static int Count(string file) => File.ReadAllBytes(file).Count(b => b == 'Q');
}

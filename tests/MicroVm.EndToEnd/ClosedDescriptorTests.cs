using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>Standard descriptors that a caller closed are /dev/null, in every executable, before the runtime opens a file of its own.</summary>
public sealed unsafe class ClosedDescriptorTests
{
    [SkippableTheory]
    [InlineData("bin/microvm", "--version")]
    [InlineData("bin/containerd-shim-microvm-v2", "-v")]
    [InlineData("libexec/microvm/microvm-vmm", "--no-such-flag")]
    [InlineData("libexec/microvm/microvm-agent", "")]
    public void AreFilledBeforeAnythingElse(string executable, string argument)
    {
        Installation.RequireKvm();
        string root = Directory.CreateTempSubdirectory("microvm-closed-").FullName;
        try
        {
            Directory.CreateDirectory(Path.Combine(root, "dev"));
            File.Copy(Path.Combine(Installation.Out, executable), Path.Combine(root, "program"));
            foreach (string closed in (string[])["", "0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"])
            {
                // A file of its own is the program's /dev/null: its opening is seen.
                string nothing = Path.Combine(root, "dev", "null");
                File.WriteAllText(nothing, "");
                using SafeFd watch = SafeFd.From(Libc.inotify_init1(Libc.IN_CLOEXEC | Libc.IN_NONBLOCK), "inotify_init1");
                Assert.True(Libc.inotify_add_watch(watch.Value, nothing, Libc.IN_OPEN) >= 0);
                Shell.Run("sh", "-c", $"exec chroot {root} /program {argument} {closed}");

                // Equal events that follow each other are one (inotify(7)).
                Assert.Equal((closed, closed.Length > 0 ? 1 : 0), (closed, Events(watch)));
            }
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }

    [SkippableTheory]
    [InlineData("cat <&-", "")]
    [InlineData("sh -c 'cat; echo told; echo also >&2' <&- 2>&-", "told\n")]
    public void OfAnExecAreEmpty(string command, string expected)
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer container = new(bundle);
        container.Create().EnsureSuccess();
        container.Call("start").EnsureSuccess();
        CommandResult result = Shell.Run("sh", "-c", $"exec {Installation.Runtime} --root {container.Root} exec {container.Id} {command}");
        Assert.Equal((0, expected), (result.ExitCode, result.StandardOutput));
    }

    private static int Events(SafeFd watch)
    {
        byte* buffer = stackalloc byte[4096];
        int count = 0;
        nint length;
        while ((length = Libc.read(watch.Value, buffer, 4096)) > 0)
        {
            // Events of a watched file carry no name: each is a header of 16 bytes (inotify(7)).
            count += (int)length / 16;
        }

        return count;
    }
}

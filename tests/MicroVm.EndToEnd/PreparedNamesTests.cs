using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>Names that somebody prepared for the runtime, which is root: in folders of a caller, and in an image.</summary>
public sealed class PreparedNamesTests
{
    [SkippableTheory]
    [InlineData("pid")]
    [InlineData(".pid")]
    public void APidFileFollowsNoLink(string link)
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        File.WriteAllText(c["victim"], "kept");
        File.CreateSymbolicLink(c[link], "victim");
        CommandResult result = c.Create();
        Assert.Equal("kept", File.ReadAllText(c["victim"]));

        // runc refuses a prepared name of the file that it writes before it renames; ours removes it.
        if (Installation.IsMicroVm)
        {
            result.EnsureSuccess();
            Assert.Null(new FileInfo(c["pid"]).LinkTarget);
            Assert.False(File.Exists(c[".pid"]));
            Assert.True(ProcessTree.IsAlive(c.Pid));
        }
    }

    /// <summary>The users' file of an image, which the runtime reads for HOME, is not opened when it is no file.</summary>
    [SkippableTheory]
    [InlineData("mkfifo $0", true)]
    [InlineData("mknod $0 c 5 2", true)]
    [InlineData("mkdir $0", false)]
    [InlineData("ln -s /dev/zero $0", false)]
    public unsafe void WhatIsNoFileOfUsersIsNotOpened(string prepare, bool watched)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo $HOME");
        string users = Path.Combine(bundle.Rootfs, "etc/passwd");
        File.Delete(users);
        Shell.Run("sh", "-c", prepare, users).EnsureSuccess();

        // What opening does is the device's to say: that it is opened at all is what must not be, not that it takes long.
        using SafeFd watch = SafeFd.From(Libc.inotify_init1(Libc.IN_CLOEXEC | Libc.IN_NONBLOCK), "inotify_init1");
        Assert.True(!watched || Libc.inotify_add_watch(watch.Value, users, Libc.IN_OPEN) >= 0);
        CommandResult result = Container.Run(bundle);
        Assert.True((result.ExitCode, result.StandardOutput) == (0, "/\n"), result.ToString());
        byte* events = stackalloc byte[256];
        Assert.Equal((-1, Errno.EAGAIN), ((int)Libc.read(watch.Value, events, 256), Check.LastErrno));
    }
}

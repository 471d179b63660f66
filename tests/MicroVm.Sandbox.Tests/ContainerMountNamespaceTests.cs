using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Tests;

/// <summary>What callers find who enter the mount namespace of a container's process.</summary>
public sealed class ContainerViewTests
{
    [SkippableFact]
    public void NamespaceHoldsRootAndVolumesAndNothingOfTheHost()
    {
        Skip.IfNot(Environment.UserName == "root", "not root: mount namespaces need root");
        using TempFolder folder = new();
        string rootfs = Folder(folder, "rootfs"), volume = Folder(folder, "volume");
        File.WriteAllText(Path.Combine(rootfs, "marker"), "of the container");
        File.WriteAllText(Path.Combine(volume, "given"), "of the volume");
        Directory.CreateDirectory(Path.Combine(rootfs, "data"));
        Directory.CreateDirectory(Path.Combine(rootfs, "kept"));

        // A destination that the container's own files lead astray stays in the container.
        File.CreateSymbolicLink(Path.Combine(rootfs, "led"), "/../../../data");
        Spec spec = new()
        {
            Root = new Root { Path = rootfs },
            Mounts =
            [
                new Mount { Destination = "/led", Source = volume, Options = ["rbind", "rw"] },
                new Mount { Destination = "/kept", Source = volume, Options = ["rbind", "ro"] },
                new Mount { Destination = "/not/there", Source = volume, Options = ["bind"] },
                new Mount { Destination = "/tmp", Source = "tmpfs", Type = "tmpfs" },
            ],
        };
        string[] entries = [];
        string data = "";
        Exception? refused = null;
        using NamespaceThread first = new();
        using ContainerMountNamespace view = ContainerMountNamespace.Open(spec, folder.Path, rootfs);
        first.Do(view.Enter);
        first.Do(view.AttachVolumes);
        first.Do(() =>
        {
            entries = [.. Directory.EnumerateFileSystemEntries("/").Order(StringComparer.Ordinal)];
            data = File.ReadAllText("/data/given");
            File.WriteAllText("/data/made", "from the caller");
            refused = Record.Exception(() => File.WriteAllText("/kept/other", ""));
        });
        Assert.True(Directory.Exists(rootfs), "the work goes on in the host's namespace");
        Assert.Equal(["/data", "/kept", "/led", "/marker"], entries);
        Assert.Equal("of the volume", data);
        Assert.Equal("from the caller", File.ReadAllText(Path.Combine(volume, "made")));
        Assert.IsType<IOException>(refused, exactMatch: false);
    }

    [SkippableFact]
    public void SharedMountsOfTheHostStayUntouched()
    {
        Skip.IfNot(Environment.UserName == "root", "not root: mount namespaces need root");
        using TempFolder folder = new();
        string rootfs = Folder(folder, "rootfs");
        string? error = null;
        using NamespaceThread first = new();

        // As dockerd has its folder: a mount of itself, shared.
        first.Do(() =>
        {
            Assert.Equal(0, Libc.unshare(Libc.CLONE_NEWNS));
            Assert.Equal(0, Libc.mount(null, "/", null, (nuint)(Libc.MS_REC | Libc.MS_PRIVATE), null));
            Assert.Equal(0, Libc.mount(rootfs, rootfs, null, (nuint)Libc.MS_BIND, null));
            Assert.Equal(0, Libc.mount(null, rootfs, null, (nuint)Libc.MS_SHARED, null));
            File.WriteAllText(Path.Combine(rootfs, "marker"), "");
            using ContainerMountNamespace view = ContainerMountNamespace.Open(new Spec { Root = new Root { Path = rootfs } }, folder.Path, rootfs);
            error = Record.Exception(view.Enter)?.Message ?? (File.Exists("/marker") ? null : "not entered");
        });
        Assert.Null(error);
    }

    [SkippableFact]
    public void ProcIsOfTheProcessesThatStandForTheContainersAndLeadsNowhere()
    {
        Skip.IfNot(Environment.UserName == "root", "not root: mount namespaces need root");
        using TempFolder folder = new();
        string rootfs = Folder(folder, "rootfs"), proc = Folder(folder, "rootfs/proc"), self = $"/proc/{Environment.ProcessId}";
        File.WriteAllText(Path.Combine(proc, "own"), "of the container");
        string[] entries = [], ofProcess = [], read = [], afterwards = [], again = [];
        InView(rootfs, (first, other, tid) =>
        {
            first.Do(() =>
            {
                entries = Names("/proc");
                ofProcess = [.. Directory.EnumerateFileSystemEntries(self, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)];
                read = [.. ((string[])["stat", "status", "cmdline"]).Select(n => File.ReadAllText($"{self}/{n}"))];
            });

            other.OpenView(tid);
            other.Remove();
            first.Do(() => afterwards = Names("/proc"));
            other.AddTo(tid);
            first.Do(() => again = [.. Names("/proc"), File.ReadAllText($"{self}/cmdline")]);
        });
        Assert.Equal([self, "/proc/stat"], entries);
        Assert.Equal([$"{self}/cmdline", $"{self}/ns", $"{self}/ns/pid", $"{self}/stat", $"{self}/status"], ofProcess);
        Assert.StartsWith($"{Environment.ProcessId} (", read[0], StringComparison.Ordinal);
        Assert.Contains($"\nPid:\t{Environment.ProcessId}\n", read[1], StringComparison.Ordinal);
        Assert.Equal(File.ReadAllText("/proc/self/cmdline"), read[2]);
        Assert.Equal(["/proc/stat"], afterwards);
        Assert.Equal([self, "/proc/stat", read[2]], again);
        Assert.Equal(["own"], Directory.EnumerateFileSystemEntries(proc).Select(Path.GetFileName));

        static string[] Names(string path) => [.. Directory.EnumerateFileSystemEntries(path).Order(StringComparer.Ordinal)];
    }

    [SkippableFact]
    public void AContainerWithoutProcGetsNone()
    {
        Skip.IfNot(Environment.UserName == "root", "not root: mount namespaces need root");
        using TempFolder folder = new();
        string rootfs = Folder(folder, "rootfs");
        File.CreateSymbolicLink(Path.Combine(rootfs, "proc"), Folder(folder, "rootfs/elsewhere"));
        InView(rootfs, (_, other, tid) => other.AddTo(tid));
        Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(rootfs, "elsewhere")));
    }

    [Fact]
    public void FailuresReachTheOneWhoAsked()
    {
        using NamespaceThread first = new();
        Assert.Equal("asked", Assert.Throws<InvalidOperationException>(() => first.Do(() => throw new InvalidOperationException("asked"))).Message);
    }

    /// <summary>Runs what an exec's process does, which finds the view by the container's process.</summary>
    private static void InView(string rootfs, Action<NamespaceThread, ProcessFiles, int> work)
    {
        using NamespaceThread first = new();
        using ContainerMountNamespace view = ContainerMountNamespace.Open(new Spec { Root = new Root { Path = rootfs } }, rootfs, rootfs);
        using ProcessFiles own = ProcessFiles.Open(Environment.ProcessId, first: true), other = ProcessFiles.Open(Environment.ProcessId, first: false);
        nint tid = 0;
        first.Do(() =>
        {
            view.Enter();
            own.Begin();
            tid = Libc.syscall((nint)Libc.SYS_gettid, 0, 0, 0, 0, 0, 0);
        });
        work(first, other, (int)tid);
    }

    private static string Folder(TempFolder top, string name) => Directory.CreateDirectory(Path.Combine(top.Path, name)).FullName;
}

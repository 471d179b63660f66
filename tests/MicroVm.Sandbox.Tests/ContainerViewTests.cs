using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.StandIn;

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
        Exception? refused = null, failure = null;
        Thread thread = new(() =>
        {
            try
            {
                FirstThread.Run(first =>
                {
                    using ContainerView view = ContainerView.Open(spec, folder.Path, rootfs);
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
                    return true;
                });
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        Assert.Null(failure);
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
        Thread thread = new(() => FirstThread.Run(first =>
        {
            // As dockerd has its folder: a mount of itself, shared.
            first.Do(() =>
            {
                Assert.Equal(0, Libc.unshare(Libc.CLONE_NEWNS));
                Assert.Equal(0, Libc.mount(null, "/", null, (nuint)(Libc.MS_REC | Libc.MS_PRIVATE), null));
                Assert.Equal(0, Libc.mount(rootfs, rootfs, null, (nuint)Libc.MS_BIND, null));
                Assert.Equal(0, Libc.mount(null, rootfs, null, (nuint)Libc.MS_SHARED, null));
                File.WriteAllText(Path.Combine(rootfs, "marker"), "");
                using ContainerView view = ContainerView.Open(new Spec { Root = new Root { Path = rootfs } }, folder.Path, rootfs);
                error = Record.Exception(view.Enter)?.Message ?? (File.Exists("/marker") ? null : "not entered");
            });
            return true;
        }));
        thread.Start();
        thread.Join();
        Assert.Null(error);
    }

    [Fact]
    public void FailuresReachTheOneWhoAsked()
    {
        string said = FirstThread.Run(first =>
            Assert.Throws<InvalidOperationException>(() => first.Do(() => throw new InvalidOperationException("asked"))).Message);
        Assert.Equal("asked", said);
        Assert.Throws<NotSupportedException>(() => FirstThread.Run<int>(_ => throw new NotSupportedException()));
    }

    private static string Folder(TempFolder top, string name) => Directory.CreateDirectory(Path.Combine(top.Path, name)).FullName;
}

using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Mounts of the host below volumes: those that are there at the start, those that come later, those that go.</summary>
public sealed class LaterMountTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-later-").FullName;
    private readonly string _volume;

    public LaterMountTests()
    {
        _volume = Path.Combine(_folder, "volume");
        Directory.CreateDirectory(Path.Combine(_volume, "early"));
        Directory.CreateDirectory(Path.Combine(_volume, "late"));
        Directory.CreateDirectory(Path.Combine(_volume, "a b"));
        if (Installation.WhyNothingRuns is null)
        {
            Mount("--bind", _volume, _volume);
            Mount("--make-shared", _volume);
        }
    }

    public void Dispose()
    {
        // With everything below.
        Shell.Run("umount", "-R", _volume);
        Directory.Delete(_folder, recursive: true);
    }

    [SkippableFact]
    public void AFollowingVolumeSeesThemComeAndGo()
    {
        Installation.RequireRuntime();
        Tmpfs("early", "first");
        using Bundle bundle = Bundle.Create("while read -r line; do eval \"$line\"; echo \"@ $?\"; done");
        bundle.AddMount("/vol", _volume, "bind", "rbind", "rslave", "rw");
        using Container container = Container.Start(bundle);
        int read = 0;
        string Ask(string line)
        {
            container.Input.Write(System.Text.Encoding.UTF8.GetBytes(line + "\n"));
            container.Input.Flush();
            string output = container.WaitForOutput("@ ", read, out int at);
            container.WaitForOutput("\n", at, out int end);
            string said = output[read..at];
            read = end + 1;
            return said;
        }

        void Eventually(string line, string want) => DetachedContainer.Eventually(() => Ask(line) == want, $"{line} does not say {want}");

        Assert.Equal("first\n", Ask("cat /vol/early/f"));
        Tmpfs("late", "second");
        Eventually("cat /vol/late/f 2>/dev/null", "second\n");

        // What is written inside is in the new mount, on the host too.
        Assert.Equal("", Ask("echo inside >/vol/late/g"));
        Assert.Equal("inside\n", File.ReadAllText(Path.Combine(_volume, "late/g")));

        // One in another, and one whose name wants care.
        Directory.CreateDirectory(Path.Combine(_volume, "late/deep"));
        Tmpfs("late/deep", "third");
        Tmpfs("a b", "fourth");
        Eventually("cat /vol/late/deep/f '/vol/a b/f' 2>/dev/null", "third\nfourth\n");
        Assert.Equal("4\n", Ask("grep -c ' /vol/' /proc/mounts"));

        // The host unmounts what the container has looked at but does not use.
        Shell.Run("umount", Path.Combine(_volume, "late/deep")).EnsureSuccess();
        Shell.Run("umount", Path.Combine(_volume, "late")).EnsureSuccess();
        Shell.Run("umount", Path.Combine(_volume, "early")).EnsureSuccess();
        Eventually("ls /vol/late /vol/early; grep -c ' /vol/' /proc/mounts", "/vol/early:\n\n/vol/late:\n1\n");
        container.Process.StandardInput.Close();
        Assert.Equal(0, container.Wait().ExitCode);
    }

    [SkippableFact]
    public void APrivateVolumeKeepsWhatItHadAtItsStart()
    {
        Installation.RequireRuntime();
        Tmpfs("early", "first");
        using Bundle bundle = Bundle.Create("echo ready; read -r line; cat /vol/early/f; ls /vol/late");
        bundle.AddMount("/vol", _volume, "bind", "rbind", "rprivate", "rw");
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        Tmpfs("late", "second");
        container.Input.Write("\n"u8);
        container.Process.StandardInput.Close();
        Assert.Equal("ready\nfirst\n", container.Wait().StandardOutput);
    }

    [SkippableFact]
    public void APlainBindShowsNoMountsBelow()
    {
        Installation.RequireRuntime();
        File.WriteAllText(Path.Combine(_volume, "early/below"), "");
        Tmpfs("early", "first");
        using Bundle bundle = Bundle.Create("ls /vol/early /all/early");
        bundle.AddMount("/vol", _volume, "bind", "bind", "rprivate");
        bundle.AddMount("/all", _volume, "bind", "rbind", "rprivate");
        Assert.Equal("/all/early:\nf\n\n/vol/early:\nbelow\n", Container.Run(bundle).EnsureSuccess().StandardOutput);
    }

    /// <summary>The option `ro` is for the source's own mount, `rro` for those below it as well; and each has a device number of its own.</summary>
    [SkippableTheory]
    [InlineData("rprivate")]
    [InlineData("rslave")]
    public void AReadOnlyVolumeIsReadOnlyAtItsOwnMount(string propagation)
    {
        Installation.RequireRuntime();
        Tmpfs("early", "first");
        Tmpfs("a b", "second");
        using Bundle bundle = Bundle.Create("""
            for f in /vol/x /vol/early/x '/vol/a b/x' /all/early/y /all/y; do touch "$f" 2>/dev/null && echo "$f"; done
            cd /vol; stat -c %d . early 'a b' | sort -u | wc -l; find . -xdev -name f | wc -l
            """);
        bundle.AddMount("/vol", _volume, "bind", "rbind", "ro", propagation);
        bundle.AddMount("/all", _volume, "bind", "rbind", "rro", propagation);
        Assert.Equal("/vol/early/x\n/vol/a b/x\n3\n0\n", Container.Run(bundle).EnsureSuccess().StandardOutput);
    }

    private static void Mount(params string[] arguments) => Shell.Run("mount", arguments).EnsureSuccess();

    private void Tmpfs(string name, string text)
    {
        string path = Path.Combine(_volume, name);
        Mount("-t", "tmpfs", "-o", "size=1m", "none", path);
        File.WriteAllText(Path.Combine(path, "f"), text + "\n");
    }
}

using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>One file is one file, whichever name or mount leads to it, and whoever else changes the tree: other containers, the host.</summary>
public sealed class SharedFilesTests
{
    [SkippableFact]
    public void OneFolderAtTwoPlacesIsOneSetOfInodes()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("/bin/two-views");
        bundle.AddGuestProgram("two-views");
        string sub = Directory.CreateDirectory(Path.Combine(bundle.Path, "vol/sub")).FullName;
        File.WriteAllText(Path.Combine(sub, "f"), "0123456789\n");
        File.WriteAllText(Path.Combine(sub, "l"), "");
        bundle.AddMount("/all", Path.GetDirectoryName(sub)!, "bind", "rbind");
        bundle.AddMount("/part", sub, "bind", "rbind");
        CommandResult result = Container.Run(bundle).EnsureSuccess();
        string[] expected =
        [
            "socket=connected", "fifo=passed", "flock=busy", "fcntl=busy", "mapping=one", "size=15", "read=more",
            "renamed=yes", "inode=same", "old=gone", "linked=yes", "unlinked=gone",
        ];
        Assert.Equal(expected, result.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.Equal("X123456789\nmore", File.ReadAllText(Path.Combine(Path.GetDirectoryName(sub)!, "g")));
    }

    /// <summary>
    /// Docker's overlay2 has no index: names of one lower inode, as images have many of, are files of their own once one is
    /// changed, and a change by one name must not reach another.
    /// </summary>
    [SkippableFact]
    public void NamesOfALowerFileOfTheRootAreSeparateFiles()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create(
            "cd /opt; cat two three >/dev/null; ls -li >/dev/null; echo appended >>one; tail -n 1 one; chmod 600 three; stat -c %a three; " +
            "ln one four; echo more >>four; tail -n 1 one; touch -d '2001-01-01 00:00:00' two; mv three five; echo five >five");
        string lower = Path.Combine(bundle.Path, "lower");
        Directory.Move(bundle.Rootfs, lower);
        foreach (string folder in (string[])["rootfs", "u", "w", "lower/opt"])
        {
            Directory.CreateDirectory(Path.Combine(bundle.Path, folder));
        }

        string opt = Path.Combine(lower, "opt");
        File.WriteAllText(Path.Combine(opt, "one"), "same\n");
        Shell.Run("sh", "-c", $"cd {opt}; chmod 644 one; ln one two; ln one three").EnsureSuccess();
        string options = $"lowerdir={lower},upperdir={bundle.Path}/u,workdir={bundle.Path}/w";
        CommandResult mounted = Shell.Run("mount", "-t", "overlay", "overlay", "-o", options, bundle.Rootfs);
        Skip.IfNot(mounted.ExitCode == 0, $"no overlay can be mounted here: {mounted}");
        try
        {
            CommandResult result = Container.Run(bundle).EnsureSuccess();
            Assert.Equal("appended\n600\nmore\n", result.StandardOutput);
            string merged = Path.Combine(bundle.Rootfs, "opt");
            Assert.Equal("same\nappended\nmore\n", File.ReadAllText(Path.Combine(merged, "one")));
            Assert.Equal("same\nappended\nmore\n", File.ReadAllText(Path.Combine(merged, "four")));
            Assert.Equal("same\n", File.ReadAllText(Path.Combine(merged, "two")));
            Assert.Equal("five\n", File.ReadAllText(Path.Combine(merged, "five")));
            Assert.Equal(2001, File.GetLastWriteTime(Path.Combine(merged, "two")).Year);
            CommandResult modes = Shell.Run("sh", "-c", $"cd {merged}; stat -c %a one two five; ls");
            Assert.Equal("644 644 600 five four one two", string.Join(' ', modes.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries)));
            Assert.Equal("same\n", File.ReadAllText(Path.Combine(opt, "two")));
        }
        finally
        {
            Shell.Run("umount", bundle.Rootfs);
        }
    }

    /// <summary>On an overlay, too, a socket and a FIFO are reached by each of their names, and so is a symbolic link.</summary>
    [SkippableFact]
    public void NamesOfASocketAndOfAFifoOnAnOverlayLeadToOne()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("""
            cd /opt; mkfifo f; ln f g; (echo through >f) & timeout 20 cat g; wait
            unix-peer echo /opt/s >/dev/null & until [ -S s ]; do sleep 0.1; done
            ln s t; echo linked | unix-peer connect /opt/t; kill $!; ln -s f l; ln l m; [ $(stat -c %i l) = $(stat -c %i m) ] && stat -c %h l; ls
            """);
        bundle.AddGuestProgram("unix-peer");
        string lower = Path.Combine(bundle.Path, "lower");
        Directory.Move(bundle.Rootfs, lower);
        foreach (string folder in (string[])["rootfs", "u", "w", "lower/opt"])
        {
            Directory.CreateDirectory(Path.Combine(bundle.Path, folder));
        }

        CommandResult mounted = Shell.Run("mount", "-t", "overlay", "overlay", "-o", $"lowerdir={lower},upperdir={bundle.Path}/u,workdir={bundle.Path}/w", bundle.Rootfs);
        Skip.IfNot(mounted.ExitCode == 0, $"no overlay can be mounted here: {mounted}");
        try
        {
            CommandResult result = Container.Run(bundle).EnsureSuccess();
            Assert.Equal("through linked 2 f g l m s t", string.Join(' ', result.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries)));
        }
        finally
        {
            Shell.Run("umount", bundle.Rootfs);
        }
    }

    /// <summary>As `docker cp` does it: to names that the container has looked up before, found or not, and listed.</summary>
    [SkippableFact]
    public void WhatTheHostChangesInTheRootIsSeen()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("""
            cd /opt; cat conf; ls . d; cat new del; echo looked
            until grep -q fresh conf && [ -e new ] && [ ! -e del ] && [ -e d/in ]; do sleep 0.1; done; ls . d; cat conf new d/in
            until grep -q place conf; do sleep 0.1; done; echo seen
            """);
        string opt = Directory.CreateDirectory(Path.Combine(bundle.Rootfs, "opt")).FullName;
        Directory.CreateDirectory(Path.Combine(opt, "d"));
        File.WriteAllText(Path.Combine(opt, "conf"), "old\n");
        File.WriteAllText(Path.Combine(opt, "del"), "to go\n");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("looked");
        File.WriteAllText(Path.Combine(opt, "conf.tmp"), "fresh and longer\n");
        File.Move(Path.Combine(opt, "conf.tmp"), Path.Combine(opt, "conf"), overwrite: true);
        File.WriteAllText(Path.Combine(opt, "new"), "hello\n");
        File.Delete(Path.Combine(opt, "del"));
        File.WriteAllText(Path.Combine(opt, "d/in"), "inner\n");
        c.WaitForOutput("inner");
        File.WriteAllText(Path.Combine(opt, "conf"), "in place\n");
        c.WaitForOutput("seen");
        Assert.Contains("looked\n.:\nconf\nd\nnew\n\nd:\nin\nfresh and longer\nhello\ninner\nseen\n", c.Output, StringComparison.Ordinal);
    }

    /// <summary>
    /// A configuration that is replaced before the container is told to read it again, a log that is rotated away, a database that is
    /// made anew: open(2) finds what has the name now, also when the container has looked the name up in the same second.
    /// </summary>
    [SkippableTheory]
    [InlineData("/vol")]
    [InlineData("/opt")]
    public void WhatHasTheNameNowIsOpened(string place)
    {
        Installation.RequireRuntime();
        string opt = "";
        using GuestShell shell = GuestShell.Start(bundle =>
        {
            opt = Directory.CreateDirectory(Path.Combine(bundle.Rootfs, "opt")).FullName;
            bundle.AddMount("/vol", Directory.CreateDirectory(Path.Combine(bundle.Path, "vol")).FullName, "bind", "rbind", "rw");
        });
        string folder = place == "/opt" ? opt : Path.Combine(Path.GetDirectoryName(Path.GetDirectoryName(opt))!, "vol");
        shell.Run($"cd {place}; echo 0 >conf; echo first >log; echo kept >open; exec 3<open");
        for (int i = 1; i <= 5; i++)
        {
            File.WriteAllText(Path.Combine(folder, "new"), $"{i}\n");
            File.Move(Path.Combine(folder, "new"), Path.Combine(folder, "conf"), overwrite: true);
            Assert.Equal($"{i}\n", shell.Run("cat conf; : <conf"));
        }

        File.Move(Path.Combine(folder, "log"), Path.Combine(folder, "log.1"));
        shell.Run("echo second >>log");
        Assert.Equal(("first\n", "second\n"), (File.ReadAllText(Path.Combine(folder, "log.1")), File.ReadAllText(Path.Combine(folder, "log"))));
        File.Delete(Path.Combine(folder, "log"));
        Assert.NotEqual(0, shell.Try("cat log").Status);

        // What a process holds stays, by /proc too.
        File.Delete(Path.Combine(folder, "open"));
        Assert.Equal("kept\nkept\n", shell.Run("cat /proc/self/fd/3 <&3; cat <&3"));
        shell.End();
    }

    /// <summary>A log that was rotated away, or another container's removed file: its blocks are free though this container has read it.</summary>
    [SkippableFact]
    public void FilesThatTheHostRemovesAreFreed()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("cat /vol/log.1 /vol/log | wc -c; echo read; sleep 1000");
        string volume = Directory.CreateDirectory(Path.Combine(bundle.Path, "vol")).FullName;
        CommandResult mounted = Shell.Run("mount", "-t", "tmpfs", "-o", "size=64m", "none", volume);
        Skip.IfNot(mounted.ExitCode == 0, $"no tmpfs can be mounted here: {mounted}");
        try
        {
            File.WriteAllBytes(Path.Combine(volume, "log.1"), new byte[20 << 20]);
            File.WriteAllBytes(Path.Combine(volume, "log"), new byte[1 << 20]);
            bundle.AddMount("/vol", volume, "bind", "rbind");
            using DetachedContainer c = new(bundle);
            Assert.Equal(0, c.Create().ExitCode);
            c.Call("start").EnsureSuccess();
            c.WaitForOutput("read");
            long before = UsedKiB(volume);
            File.Move(Path.Combine(volume, "log"), Path.Combine(volume, "log.1"), overwrite: true);
            for (int i = 0; before - UsedKiB(volume) < 20_000; i++)
            {
                Assert.True(i < 600, $"{UsedKiB(volume)} KiB of {before} are still used after a minute");
                Thread.Sleep(100);
            }
        }
        finally
        {
            Shell.Run("umount", "-l", volume);
        }
    }

    /// <summary>`find -xdev`, `du -x` and `rm --one-file-system` do not go into volumes, and st_dev differs where it differs on the host.</summary>
    [SkippableFact]
    public void EachFileSystemOfTheHostIsADeviceOfItsOwn()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create(
            "find / -xdev -name 'in-*' | sort | xargs; for f in / /a /b /t /a/m; do stat -c %d $f; done; stat -c %i /a/in-a /t/in-t /a/m/in-m | xargs; " +
            "find /a -xdev -name 'in-*' | xargs; mkdir /a/s && mv /a/in-a /a/s/ && ls /a/s");
        string folder = Directory.CreateDirectory(Path.Combine(bundle.Path, "volumes")).FullName;
        string tmpfs = Directory.CreateDirectory(Path.Combine(bundle.Path, "tmpfs")).FullName;
        CommandResult mounted = Shell.Run("mount", "-t", "tmpfs", "none", tmpfs);
        Skip.IfNot(mounted.ExitCode == 0, $"no tmpfs can be mounted here: {mounted}");
        Shell.Run("mount", "-t", "tmpfs", "none", folder).EnsureSuccess();
        try
        {
            foreach (string name in (string[])["a", "b"])
            {
                File.WriteAllText(Path.Combine(Directory.CreateDirectory(Path.Combine(folder, name)).FullName, $"in-{name}"), "");
                bundle.AddMount($"/{name}", Path.Combine(folder, name), "bind", "rbind");
            }

            string inner = Directory.CreateDirectory(Path.Combine(folder, "a/m")).FullName;
            Shell.Run("mount", "-t", "tmpfs", "none", inner).EnsureSuccess();
            File.WriteAllText(Path.Combine(tmpfs, "in-t"), "");
            File.WriteAllText(Path.Combine(inner, "in-m"), "");
            string numbers = Shell.Run("stat", "-c", "%i", Path.Combine(folder, "a/in-a"), Path.Combine(tmpfs, "in-t"), Path.Combine(inner, "in-m")).StandardOutput;
            File.WriteAllText(Path.Combine(bundle.Rootfs, "in-root"), "");
            bundle.AddMount("/t", tmpfs, "bind", "rbind");
            string[] lines = Container.Run(bundle).EnsureSuccess().StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries);
            Assert.Equal(9, lines.Length);
            Assert.Equal("/in-root", lines[0]);
            Assert.Equal(lines[2], lines[3]);
            Assert.Equal(4, lines[1..6].Distinct().Count());
            Assert.Equal(numbers.Trim().Replace('\n', ' '), lines[6]);
            Assert.Equal("/a/in-a", lines[7]);
            Assert.Equal("in-a", lines[8]);
        }
        finally
        {
            Shell.Run("umount", "-l", tmpfs);
            Shell.Run("umount", "-l", folder);
        }
    }

    private static long UsedKiB(string folder) => long.Parse(
        Shell.Run("df", "--output=used", "-k", folder).EnsureSuccess().StandardOutput.Split('\n')[1], CultureInfo.InvariantCulture);
}

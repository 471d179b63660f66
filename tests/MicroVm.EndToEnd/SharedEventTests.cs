using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>inotify(7) in a container tells what the host and other containers change in a folder that they share.</summary>
public sealed class SharedEventTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-events-").FullName;
    private GuestShell? _a;

    public SharedEventTests() => Installation.RequireRuntime();

    private GuestShell A => _a!;

    [SkippableFact]
    public void WhatTheHostChangesIsTold()
    {
        string conf = Path.Combine(Directory.CreateDirectory(Path.Combine(_folder, "w")).FullName, "conf");
        File.WriteAllText(conf, "old\n");
        _a = Start();
        Watch("/vol/w");
        File.WriteAllText(conf, "new and longer\n");
        File.WriteAllText(Path.Combine(_folder, "w/made"), "x");
        File.Move(Path.Combine(_folder, "w/made"), Path.Combine(_folder, "w/moved"));
        Directory.CreateDirectory(Path.Combine(_folder, "w/folder"));
        File.Delete(Path.Combine(_folder, "w/moved"));
        string[] told = ToldUntil("d moved");
        Assert.Superset(new HashSet<string> { "c conf", "w conf", "n made", "w made", "m made", "y moved", "n folder", "d moved" }, told.ToHashSet());
        Assert.True(Array.IndexOf(told, "n made") < Array.IndexOf(told, "m made") && Array.IndexOf(told, "y moved") < Array.IndexOf(told, "d moved"), string.Join(", ", told));
    }

    /// <summary>A configuration file that is replaced by rename(2) is read anew at the event: nothing that was cached is in the way.</summary>
    [SkippableFact]
    public void AtTheEventTheNewFileIsThere()
    {
        File.WriteAllText(Path.Combine(_folder, "conf"), "0\n");
        _a = Start();
        A.Run("""printf '#!/bin/sh\ncat /vol/conf >>/tmp/seen\n' >/tmp/reload; chmod +x /tmp/reload; cat /vol/conf; stat /vol/conf >/dev/null""");
        A.Run("watch-probe y /vol /tmp/reload >/tmp/told 2>&1 &");
        WaitForWatch();
        for (int i = 1; i <= 3; i++)
        {
            A.Run("cat /vol/conf >/dev/null");
            File.WriteAllText(Path.Combine(_folder, "conf.tmp"), $"version {i}\n");
            File.Move(Path.Combine(_folder, "conf.tmp"), Path.Combine(_folder, "conf"), overwrite: true);
            A.Run($"until [ $(wc -l </tmp/seen) -ge {i} ]; do sleep 0.05; done");
        }

        Assert.Equal("version 1\nversion 2\nversion 3\n", A.Run("cat /tmp/seen"));
    }

    [SkippableFact]
    public void AFileByItselfIsWatchedToo()
    {
        string file = Path.Combine(_folder, "log");
        File.WriteAllText(file, "");
        _a = Start();
        A.Run("watch-probe ceD /vol/log >/tmp/told 2>&1 &");
        WaitForWatch();
        File.AppendAllText(file, "line\n");
        A.Run("until grep -q '^c' /tmp/told; do sleep 0.05; done");
        Assert.Equal("line\n", A.Run("cat /vol/log"));
        File.SetUnixFileMode(file, UnixFileMode.UserRead);
        A.Run("until grep -q '^e' /tmp/told; do sleep 0.05; done");
    }

    /// <summary>As when an archive is unpacked on the host: thousands of changes at once, none of which is lost.</summary>
    [SkippableFact]
    public void NothingOfABurstIsLost()
    {
        const int files = 1500;
        Directory.CreateDirectory(Path.Combine(_folder, "burst"));
        _a = Start();
        A.Run("watch-probe nmyd /vol/burst >/tmp/told 2>&1 &");
        WaitForWatch();
        string[] names = [.. Enumerable.Range(0, files).Select(i => Path.Combine(_folder, $"burst/a-file-of-an-archive-{i}"))];
        foreach (string name in names)
        {
            File.WriteAllText(name, "");
        }

        foreach (string name in names)
        {
            File.Move(name, name + ".moved");
        }

        foreach (string name in names)
        {
            File.Delete(name + ".moved");
        }

        ToldUntil($"d {Path.GetFileName(names[^1])}.moved");
        Assert.Equal($"{files} d\n{files} m\n{files} n\n{files} y\n", A.Run("tail -n +2 /tmp/told | cut -c 1 | sort | uniq -c | sed 's/^ *//'"));
    }

    /// <summary>A VMM that does not get to its events: the host's queue overflows, and who watches inside is told so, once.</summary>
    [SkippableFact]
    public void WhenEventsAreLostThatIsTold()
    {
        Installation.RequireKvm();
        int most = int.Parse(File.ReadAllText("/proc/sys/fs/inotify/max_queued_events"), System.Globalization.CultureInfo.InvariantCulture);
        Skip.If(most > 50_000, $"this host keeps {most} events: too many files to lose one");
        Directory.CreateDirectory(Path.Combine(_folder, "flood"));
        _a = Start();
        A.Run("watch-probe n /vol/flood >/tmp/told 2>&1 &");
        WaitForWatch();
        int vmm = Assert.Single(A.Container.VmmPids());
        Shell.Run("kill", "-STOP", $"{vmm}").EnsureSuccess();
        try
        {
            for (int i = 0; i <= most; i++)
            {
                File.WriteAllText(Path.Combine(_folder, $"flood/{i}"), "");
            }
        }
        finally
        {
            Shell.Run("kill", "-CONT", $"{vmm}").EnsureSuccess();
        }

        Assert.Equal("1 O .\n", A.Run("i=0; until grep -q ^O /tmp/told || [ $i -ge 600 ]; do sleep 0.1; i=$((i+1)); done; grep ^O /tmp/told | uniq -c | sed 's/^ *//'"));
    }

    /// <summary>What a container does is told to its own processes once, and to those of the other container.</summary>
    [SkippableFact]
    public void EveryChangeIsToldOnce()
    {
        _a = Start();
        using GuestShell b = Start();
        Watch("/vol");
        A.Run("echo one >/vol/own; mkdir /vol/own.d; mv /vol/own /vol/own2; rm /vol/own2");
        b.Run("echo two >/vol/theirs; echo three >>/vol/theirs");
        b.Run("rm /vol/theirs; echo >/vol/end");
        string[] told = ToldUntil("w end");
        Assert.Equal(
            ["c own", "d own2", "m own", "n own", "n own.d", "w own", "y own2"],
            told.Where(t => t.Contains("own", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        Assert.Equal(["n theirs", "d theirs"], told.Where(t => t is "n theirs" or "d theirs"));
        b.End();
    }

    public void Dispose()
    {
        _a?.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    private GuestShell Start() => GuestShell.Start(b =>
    {
        b.AddGuestProgram("watch-probe");
        b.AddMount("/vol", _folder, "bind", "rbind", "rw");
    });

    private void Watch(string path)
    {
        A.Run($"watch-probe cwenmyd {path} >/tmp/told 2>&1 &");
        WaitForWatch();
    }

    private void WaitForWatch() => A.Run("until grep -q ready /tmp/told; do sleep 0.05; done");

    /// <summary>The events, each a letter and a name, once one was told.</summary>
    private string[] ToldUntil(string last)
    {
        A.Run($"i=0; until grep -qx '{last}' /tmp/told || [ $i -ge 600 ]; do sleep 0.1; i=$((i+1)); done");
        string[] told = A.Run("tail -n +2 /tmp/told").Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Contains(last, told);
        return told;
    }
}

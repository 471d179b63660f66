using System.Diagnostics;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Locks on a folder that two containers and the host have: whoever asks, a lock has one holder.</summary>
public sealed class SharedLockTests : IClassFixture<SharedLockTests.Pair>
{
    private const string File = "/vol/l";
    private readonly Pair _pair;

    public SharedLockTests(Pair pair)
    {
        Installation.RequireRuntime();
        _pair = pair;
        _pair.Start();
    }

    private GuestShell A => _pair.A!;

    private GuestShell B => _pair.B!;

    [SkippableTheory]
    [InlineData("flock")]
    [InlineData("posix")]
    [InlineData("ofd")]
    public void ALockHasOneHolder(string kind)
    {
        string holder = Hold(A, kind, "w");
        Assert.Equal("busy\n", B.Run($"lock-probe try {kind} {File} r"));
        Assert.Equal("busy\n", A.Run($"lock-probe try {kind} {File} w"));
        Assert.Equal("busy\n", OnHost($"try {kind} {_pair.OnHost(File)} w"));
        A.Run($"kill -9 {holder}; wait {holder} 2>/dev/null || true");
        Assert.Equal("got\n", B.Run($"lock-probe try {kind} {File} w"));
        Assert.Equal("got\n", OnHost($"try {kind} {_pair.OnHost(File)} w"));
    }

    [SkippableFact]
    public void AFolderHasOneHolderToo()
    {
        string holder = Hold(A, "flock", "w", "/vol");
        Assert.Equal("busy\n", B.Run("lock-probe try flock /vol w"));
        Assert.Equal("busy\n", OnHost($"try flock {_pair.Folder} w"));
        A.Run($"kill {holder}; wait {holder} 2>/dev/null || true");
        Assert.Equal("got\n", B.Run("lock-probe try flock /vol w"));
    }

    [SkippableFact]
    public void ReadersShareAndAreToldOfEachOther()
    {
        string holder = Hold(A, "posix", "r", start: 10);
        Assert.Equal("got\n", B.Run($"lock-probe try posix {File} r 0 100"));
        Assert.Equal("r 10+5 by a process\n", A.Run($"lock-probe who {File} w 0 0"));
        Assert.StartsWith("r 10+5 by", B.Run($"lock-probe who {File} w 0 0"));
        Assert.Equal("free\n", B.Run($"lock-probe who {File} w 0 10"));
        A.Run($"kill {holder}; wait {holder} 2>/dev/null || true");
    }

    [SkippableTheory]
    [InlineData("flock")]
    [InlineData("posix")]
    [InlineData("ofd")]
    public void AWaitEndsWhenTheOtherContainerLetsGoByASignalAndByDeath(string kind)
    {
        string holder = Hold(A, kind, "w");
        Assert.Equal("EINTR\n", B.Run($"lock-probe alarm {kind} {File} w"));
        B.Run($"lock-probe hold {kind} {File} w >/tmp/killed & p=$!; sleep 0.2; kill -9 $p; wait $p; [ $? = 137 ]");
        B.Run($"lock-probe hold {kind} {File} w >/tmp/waited & echo $! >/tmp/waiter; sleep 0.2; [ ! -s /tmp/waited ]; ls /vol >/dev/null");
        A.Run($"kill {holder}; wait {holder} 2>/dev/null || true");
        Assert.Equal("got\n", B.Run("until [ -s /tmp/waited ]; do sleep 0.05; done; cat /tmp/waited; kill $(cat /tmp/waiter)"));
    }

    [SkippableFact]
    public void TheHostsLocksAreSeen()
    {
        using Process host = Process.Start(new ProcessStartInfo(Installation.GuestProgram("lock-probe"), ["hold", "posix", _pair.OnHost(File), "w"]) { RedirectStandardOutput = true })!;
        try
        {
            Assert.Equal("got", host.StandardOutput.ReadLine());
            Assert.Equal("busy\n", A.Run($"lock-probe try posix {File} w"));
        }
        finally
        {
            host.Kill();
            host.WaitForExit();
        }

        Assert.Equal("got\n", A.Run($"lock-probe try posix {File} w"));
    }

    [SkippableTheory]
    [InlineData(File)]
    [InlineData("/root/l")]
    public void ForkCloseAndDupReleaseWhatPosixSays(string path)
    {
        A.Run($"echo xxxxxxxx >{path}");
        Assert.Equal(
            "child-closed=busy other-closed=got dup-kept=busy last-closed=got flock-dup-kept=busy flock-closed=got middle=got left=busy weakened=got/busy\n",
            A.Run($"lock-probe closing {path}"));
        Assert.Equal("one gets EDEADLK, the other goes on\n", A.Run($"lock-probe deadlock {path}"));
    }

    /// <summary>What one wrote under the lock, by write(2) or in a mapping, the next reads under the lock.</summary>
    [SkippableTheory]
    [InlineData("posix", "read")]
    [InlineData("flock", "read")]
    [InlineData("posix", "map")]
    public void WhatWasWrittenUnderALockIsReadUnderTheNext(string kind, string way)
    {
        const int Turns = 25;
        string counter = _pair.OnHost("/vol/counter");
        System.IO.File.WriteAllBytes(counter, new byte[4096]);
        foreach (GuestShell shell in (GuestShell[])[A, B])
        {
            shell.Run($"rm -f /tmp/1 /tmp/2; for i in 1 2; do lock-probe count {kind} /vol/counter {Turns} {way} >/tmp/$i & done");
        }

        Assert.Equal("counted\n", OnHost($"count {kind} {counter} {Turns} {way}"));
        foreach (GuestShell shell in (GuestShell[])[A, B])
        {
            Assert.Equal("counted\ncounted\n", shell.Run("until [ -s /tmp/1 ] && [ -s /tmp/2 ]; do sleep 0.1; done; cat /tmp/1 /tmp/2"));
        }

        Assert.Equal(5 * Turns, BitConverter.ToInt64(System.IO.File.ReadAllBytes(counter)));
    }

    private static string OnHost(string arguments) => Shell.Run(Installation.GuestProgram("lock-probe"), arguments.Split(' ')).StandardOutput;

    /// <summary>Starts a process that holds a lock, and waits until it has it; its id.</summary>
    private static string Hold(GuestShell shell, string kind, string type, string path = File, int start = 0)
    {
        string range = start == 0 ? "" : $"{start} 5";
        return shell.Run(
            $"rm -f /tmp/held; lock-probe hold {kind} {path} {type} {range} >/tmp/held & p=$!; until [ -s /tmp/held ]; do sleep 0.05; done; grep -q got /tmp/held && echo $p").Trim();
    }

    public sealed class Pair : GuestPair
    {
        public Pair()
            : base("lock-probe") => System.IO.File.WriteAllText(OnHost(File), "x\n");

        public string OnHost(string path) => Path.Combine(Folder, Path.GetRelativePath("/vol", path));
    }
}

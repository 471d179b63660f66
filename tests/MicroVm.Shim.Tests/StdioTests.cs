using MicroVm.Linux;
using MicroVm.Sandbox;
using MicroVm.Shim.Streams;
using MicroVm.Shim.Tests.Support;

namespace MicroVm.Shim.Tests;

/// <summary>The host's ends of a process's streams.</summary>
public sealed class StdioTests
{
    private static readonly ProcessName Name = new("space", "box");

    [Fact]
    public void AFifoSurvivesItsReaderAndEndsWithTheProcess()
    {
        using TempFolder folder = new();
        string output = Fifo.Make(folder["out"]);
        using SafeFd client = Fifo.OpenRead(output);
        using StdioEnds ends = StdioEnds.Open(new StdioUris("", output, "", Terminal: false), Name);
        Assert.Null(ends.Error);
        Fifo.Write(ends.Output!, "one");
        Assert.Equal("one", Fifo.ReadAvailable(client));
        client.Dispose();

        // Nobody reads: it waits in the FIFO, and is no error.
        Fifo.Write(ends.Output!, "two");
        using SafeFd again = Fifo.OpenRead(output);
        Assert.Equal("two", Fifo.ReadAvailable(again));
        Assert.Equal("", Fifo.ReadAvailable(again));
        ends.EndOutput();
        Assert.Null(Fifo.ReadAvailable(again));
    }

    [Fact]
    public void StandardInputEndsOnceItIsClosedAndItsWritersAreGone()
    {
        using TempFolder folder = new();
        string input = Fifo.Make(folder["in"]);
        using StdioEnds ends = StdioEnds.Open(new StdioUris("fifo://" + input, "", "", Terminal: false), Name);
        Assert.Equal("", Fifo.ReadAvailable(ends.Input!));
        using (SafeFd client = Fifo.OpenWrite(input))
        {
            Fifo.Write(client, "typed");
        }

        Assert.Equal("typed", Fifo.ReadAvailable(ends.Input!));

        // The client went away, and may come again.
        Assert.Equal("", Fifo.ReadAvailable(ends.Input!));
        ends.CloseInput();
        Assert.Null(Fifo.ReadAvailable(ends.Input!));
    }

    [Fact]
    public void AFileTakesBothStreamsAndIsAppendedTo()
    {
        using TempFolder folder = new();
        string log = Path.Combine(folder["deep/er"], "log");
        using (StdioEnds ends = StdioEnds.Open(new StdioUris("", "file://" + log, "file://" + log, Terminal: false), Name))
        {
            Assert.True(ends.IsOne);
            Fifo.Write(ends.Output!, "one\n");
            Fifo.Write(ends.Error!, "two\n");
        }

        using (StdioEnds ends = StdioEnds.Open(new StdioUris("", "file://" + log, "", Terminal: true), Name))
        {
            Fifo.Write(ends.Output!, "three\n");
        }

        Assert.Equal("one\ntwo\nthree\n", File.ReadAllText(log));
    }

    [Fact]
    public void ALogDriverGetsStreamsNamesAndArguments()
    {
        using TempFolder folder = new();
        string driver = folder["driver"], result = folder["result"];
        File.WriteAllText(driver, "#!/bin/sh\nexec 5>&-\n{ echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID $*\"; cat <&3; cat <&4; } >" + result + "\n");
        File.SetUnixFileMode(driver, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        using (StdioEnds ends = StdioEnds.Open(new StdioUris("", $"binary://{driver}?--key=a%20b&flag", "", Terminal: false), Name))
        {
            Fifo.Write(ends.Output!, "out\n");
            Fifo.Write(ends.Error!, "err\n");
        }

        Assert.Equal("space/box --key a b flag\nout\nerr\n", File.ReadAllText(result));
    }

    [Theory]
    [InlineData("https://example/x")]
    [InlineData("relative")]
    [InlineData("binary:///does/not/exist")]
    public void WhatIsNoStreamIsRefused(string uri) =>
        Assert.Throws<SandboxException>(() => StdioEnds.Open(new StdioUris("", uri, "", Terminal: false), Name));
}

using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>FIFOs in folders that containers share with the host and with containers of other VMs (option host-sockets).</summary>
public sealed class SharedFifoTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-fifos-").FullName;

    public SharedFifoTests()
    {
        Installation.RequireRuntime();
        Directory.CreateDirectory(this["vol"]);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string this[string name] => Path.Combine(_folder, name);

    /// <summary>Whichever end is opened first; more bytes than a pipe holds; an end of file when the writer closes.</summary>
    [SkippableFact]
    public void TheHostAndAContainerAreTheTwoEnds()
    {
        MakeFifo("vol/in");
        MakeFifo("vol/out");
        using Bundle bundle = Sharing("cat /vol/in | tr a-j b-k >/vol/out; echo first; cat /vol/in; echo answer >/vol/out; echo second; cat /vol/in");
        using Container container = Container.Start(bundle);
        string text = string.Concat(Enumerable.Range(0, 300_000).Select(i => "jihgfedcba"[i % 10]));
        File.WriteAllText(this["text"], text);
        string answer = OnHost($"cat {this["text"]} >{this["vol/in"]} & cat {this["vol/out"]}; wait");
        Assert.Equal(string.Concat(text.Select(c => (char)(c + 1))), answer);
        container.WaitForOutput("first");

        // The host's reader of before has gone, so that a writer inside waits for the next.
        OnHost($"echo go on >{this["vol/in"]}");
        container.WaitForOutput("go on");
        Assert.Equal("answer\n", OnHost($"cat {this["vol/out"]}"));
        container.WaitForOutput("second");
        OnHost($"echo from the host >{this["vol/in"]}");
        CommandResult result = container.Wait();
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("first\ngo on\nsecond\nfrom the host\n", result.StandardOutput);
    }

    [SkippableFact]
    public void TwoContainersAreTheTwoEnds()
    {
        MakeFifo("vol/there");
        using Bundle first = Sharing("until [ -p /vol/back ]; do sleep 0.1; done; cat /vol/there; echo back >/vol/back");
        using Bundle second = Sharing("mkfifo /vol/back; echo there >/vol/there; cat /vol/back; stat -c %F /vol/back");
        using Container one = Container.Start(first), two = Container.Start(second);
        Assert.Equal(("there\n", "back\nfifo\n"), (one.Wait().StandardOutput, two.Wait().StandardOutput));
        Assert.Equal("fifo\n", OnHost($"stat -c %F {this["vol/back"]}"));
    }

    /// <summary>What fifo(7), pipe(7) and poll(2) say of both ends; by way of the host's pipe nothing of it is different.</summary>
    [SkippableTheory]
    [InlineData("/vol/f")]
    [InlineData("/f")]
    public void EverythingIsAsWithAPipe(string fifo)
    {
        using Bundle bundle = Sharing($"mkfifo {fifo}; fifo-probe {fifo}");
        bundle.AddGuestProgram("fifo-probe");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal(
            """
            writer without reader: ENXIO
            read without writer: 0
            read of nothing: EAGAIN, poll 0, writer 4
            write: 5, poll 1, read 5
            fifo 1, lseek ESPIPE, pread ESPIPE
            full after 65536: EAGAIN, poll 0, read 8192, poll 4
            writer gone: poll 11, rest 57344, end 0, poll 10
            reader gone: EPIPE, signals 1
            both ends: write 3, read 3
            poll waits: 1, read 5, read waits for the end: 0
            epoll waits: 1, 1, read 5, end 1, 10
            open interrupted: EINTR, 1
            read interrupted: EINTR, 2
            open killed: 9
            nobody is left: ENXIO
            400 records whole, 0 failures

            """.ReplaceLineEndings("\n"),
            result.StandardOutput);
    }

    [SkippableFact]
    public void ThePipesEndsGoWithTheContainer()
    {
        MakeFifo("vol/f");
        using (Bundle bundle = Sharing("cat /vol/f >/dev/null & echo hello; exec sleep 1000"))
        {
            using Container container = Container.Start(bundle);
            container.WaitForOutput("hello");
            OnHost($"exec 3>{this["vol/f"]}; echo text >&3");
        }

        string tried = OnHost($"dd if=/dev/zero of={this["vol/f"]} count=1 oflag=nonblock conv=notrunc 2>&1 || true");
        Assert.Contains("No such device", tried, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void AFifoIsTheSourceOfAMount()
    {
        MakeFifo("pipe");
        using Bundle bundle = Bundle.Create("stat -c %F /run/pipe; cat /run/pipe");
        bundle.AddMount("/run/pipe", this["pipe"], "bind", "bind", "host-sockets");
        using Container container = Container.Start(bundle);
        OnHost($"echo by name >{this["pipe"]}");
        CommandResult result = container.Wait();
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal("fifo\nby name\n", result.StandardOutput);
    }

    private static string OnHost(string script)
    {
        CommandResult result = Shell.Run("timeout", "120", "sh", "-c", script);
        Assert.True(result.ExitCode == 0, result.ToString());
        return result.StandardOutput;
    }

    private void MakeFifo(string name) => Shell.Run("mkfifo", this[name]).EnsureSuccess();

    private Bundle Sharing(string script)
    {
        Bundle bundle = Bundle.Create(script);
        bundle.AddMount("/vol", this["vol"], "bind", "rbind", "rw", "rprivate", "host-sockets");
        return bundle;
    }
}

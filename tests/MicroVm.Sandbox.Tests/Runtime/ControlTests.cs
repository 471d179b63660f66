using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Tests.Runtime;

/// <summary>What commands and stand-ins tell each other.</summary>
public sealed class ControlTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void CallsAreAnsweredSideBySide()
    {
        using ManualResetEventSlim released = new();
        using ControlServer server = ControlServer.Start(_folder.Path, call =>
        {
            if (call.Verb == ControlVerb.Start)
            {
                Assert.True(released.Wait(TimeSpan.FromSeconds(60)));
            }

            return call.Verb == ControlVerb.Pause ? throw new SandboxException("no: " + call.Signal) : new ControlReply { Files = new() { ["a"] = "b\n" } };
        });
        Task<ControlReply> slow = Task.Run(() => ControlClient.Call(_folder.Path, new ControlCall { Verb = ControlVerb.Start }));
        Assert.Equal("no: 7", Assert.Throws<SandboxException>(() => ControlClient.Call(_folder.Path, new ControlCall { Verb = ControlVerb.Pause, Signal = 7 })).Message);

        // A caller that says nothing, and one that goes, hold up nobody.
        using SafeFd silent = UnixSocket.Connect(_folder["control"]);
        UnixSocket.Connect(_folder["control"]).Dispose();
        Assert.Equal("b\n", ControlClient.Call(_folder.Path, new ControlCall { Verb = ControlVerb.Stats }).Files!["a"]);
        released.Set();
        Assert.NotNull(slow.Result);
    }

    [Fact]
    public void WhoIsBeingAnsweredAtTheEndIsAnswered()
    {
        using ManualResetEventSlim called = new(), released = new();
        using ControlServer server = ControlServer.Start(_folder.Path, _ =>
        {
            called.Set();
            Assert.True(released.Wait(TimeSpan.FromSeconds(60)));
            return new ControlReply { Files = new() { ["a"] = "b\n" } };
        });
        Task<ControlReply> call = Task.Run(() => ControlClient.Call(_folder.Path, new ControlCall { Verb = ControlVerb.Start }));
        Assert.True(called.Wait(TimeSpan.FromSeconds(60)));
        Task end = Task.Run(server.Finish);
        Assert.False(end.Wait(100));
        released.Set();
        Assert.Equal("b\n", call.Result.Files!["a"]);
        Assert.True(end.Wait(TimeSpan.FromSeconds(60)));
    }

    [Fact]
    public void NobodyThereIsAnError() =>
        Assert.Throws<LinuxException>(() => ControlClient.Call(_folder.Path, new ControlCall { Verb = ControlVerb.Start }));

    [Fact]
    public void LinesComeWholeHoweverTheyAreCut()
    {
        (SafeFd a, SafeFd b) = UnixSocket.Pair();
        using SafeFd raw = b;
        using LineChannel channel = new(a);
        string text = new('x', 100_000);
        Task.Run(() =>
        {
            byte[] lines = Encoding.UTF8.GetBytes($"{{\"kind\":0,\"text\":\"{text}\"}}\n{{\"other\":[{{}}],\"kind\":3}}\nnot json\n");
            for (int at = 0; at < lines.Length; at += 777)
            {
                HostFile.WriteAll(raw, lines.AsSpan(at, Math.Min(777, lines.Length - at)), "test");
            }
        });
        Assert.Equal(text, channel.Receive<StandInMessage>()!.Text);
        Assert.Equal(StandInMessageKind.Ready, channel.Receive<StandInMessage>()!.Kind);
        Assert.Null(channel.Receive<StandInMessage>());
        Assert.Null(channel.Receive<StandInMessage>(TimeSpan.FromMilliseconds(1)));
        raw.Dispose();
        Assert.False(channel.Send(new StandInMessage { Kind = StandInMessageKind.Ready }));
    }

    [Fact]
    public void EveryMemberOfARequestArrives()
    {
        StandInRequest full = new()
        {
            Root = "/r",
            Id = "i",
            Bundle = "/b",
            Vm = new Vm.VmOptions { MemoryMiB = 0, Vcpus = 2, Kernel = "/k", Initramfs = "/i", KernelArguments = "a b", ConsoleLog = "/c" },
            Foreground = true,
            Transient = true,
            ConsoleSocket = "/s",
            SystemdCgroup = true,
            LogFile = "/l",
            LogJson = true,
            Debug = true,
            Began = long.MaxValue,
        };
        Assert.Equal(full, HandJson.Read<StandInRequest>(HandJson.Write(full)));
        StandInRequest exec = new() { Root = "/r", Id = "i", Process = new Oci.Config.Process { Args = ["a"], Cwd = "/" } };
        StandInRequest read = HandJson.Read<StandInRequest>(HandJson.Write(exec));
        Assert.Equal(["a"], read.Process!.Args!);
        Assert.Equal(exec with { Process = null }, read with { Process = null });

        ControlCall call = new() { Verb = ControlVerb.Update, Signal = 9, All = true, Update = [1, 2] };
        ControlCall called = HandJson.Read<ControlCall>(HandJson.Write(call));
        Assert.Equal(call.Update, called.Update);
        Assert.Equal(call with { Update = null }, called with { Update = null });
        Assert.ThrowsAny<System.Text.Json.JsonException>(() => HandJson.Read<ControlCall>("{\"verb\":\"Start\"}"u8));
        Assert.ThrowsAny<System.Text.Json.JsonException>(() => HandJson.Read<ControlCall>("{}"u8));
        Assert.ThrowsAny<System.Text.Json.JsonException>(() => HandJson.Read<ControlCall>("{\"verb\":1}{}"u8));
    }

    [Fact]
    public void TheConsoleSocketGetsTheMaster()
    {
        using SafeFd listener = UnixSocket.Listen(_folder["console"]);
        using HostConsole console = HostConsole.Create(_folder["console"], 0, 0);
        using SafeFd connection = UnixSocket.Accept(listener)!;
        List<SafeFd> fds = [];
        byte[] name = new byte[100];
        int n = FdReceiver.Receive(connection, name, fds, out _);
        Assert.StartsWith("/dev/pts/", Encoding.UTF8.GetString(name, 0, n), StringComparison.Ordinal);
        using SafeFd master = Assert.Single(fds);
        HostFile.WriteAll(console.Slave, "a\nb"u8, "slave");
        byte[] read = new byte[10];
        int got = 0;
        unsafe
        {
            fixed (byte* p = read)
            {
                got = (int)Libc.read(master.Value, p, 10);
            }
        }

        // Raw: no carriage return is added.
        Assert.Equal("a\nb", Encoding.UTF8.GetString(read, 0, got));
        Assert.Throws<SandboxException>(() => HostConsole.Create(_folder["nobody"], 0, 0));
    }

    [Fact]
    public void ExecsThatEndedAreNotListed()
    {
        string record = ExecRecords.Add(_folder.Path);
        File.WriteAllText(Path.Combine(Path.GetDirectoryName(record)!, $"{int.MaxValue}-1"), "");
        File.WriteAllText(Path.Combine(Path.GetDirectoryName(record)!, "odd"), "");
        Assert.Equal(ProcessIdentity.Current, Assert.Single(ExecRecords.Alive(_folder.Path)));
        ExecRecords.Remove(record);
        Assert.Empty(ExecRecords.Alive(_folder.Path));
        Assert.Empty(ExecRecords.Alive(_folder["none"]));
    }
}

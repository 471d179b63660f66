using System.Text;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Tests.Runtime;

/// <summary>What commands and proxy processes tell each other.</summary>
public sealed class ControlTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void CallsAreAnsweredSideBySide()
    {
        using ManualResetEventSlim released = new();
        using ContainerControlServer server = ContainerControlServer.Start(_folder.Path, call =>
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
        using ContainerControlServer server = ContainerControlServer.Start(_folder.Path, _ =>
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
            byte[] lines = Encoding.UTF8.GetBytes($"{{\"kind\":\"log\",\"text\":\"{text}\"}}\n{{\"other\":[{{}}],\"kind\":\"ready\"}}\nnot json\n");
            for (int at = 0; at < lines.Length; at += 777)
            {
                HostFile.WriteAll(raw, lines.AsSpan(at, Math.Min(777, lines.Length - at)), "test");
            }
        });
        Assert.Equal(text, channel.Receive<ProxyMessage>()!.Text);
        Assert.Equal(ProxyMessageKind.Ready, channel.Receive<ProxyMessage>()!.Kind);
        Assert.Null(channel.Receive<ProxyMessage>());
        Assert.Null(channel.Receive<ProxyMessage>(TimeSpan.FromMilliseconds(1)));
        raw.Dispose();
        Assert.False(channel.Send(new ProxyMessage { Kind = ProxyMessageKind.Ready }));
    }

    [Fact]
    public void EveryMemberOfARequestArrives()
    {
        ProxyRequest full = new()
        {
            Root = "/r",
            Id = "i",
            Bundle = "/b",
            Vm = new Vm.VmOptions { MemoryMiB = 0, Vcpus = 2, Kernel = "/k", Initramfs = "/i", KernelArguments = "a b", ConsoleLog = "/c", DefaultMemoryMiB = 5, DefaultVcpus = 3, MaxVcpus = 4, AllowedAnnotations = "x,y", PrivateImages = true, Template = true, MakesTemplates = true },
            Trace = true,
            Foreground = true,
            Transient = true,
            ConsoleSocket = "/s",
            SystemdCgroup = true,
            LogFile = "/l",
            LogJson = true,
            Debug = true,
            Began = long.MaxValue,
        };
        Assert.Equal(full, JsonRecords.Read<ProxyRequest>(JsonRecords.Write(full)) with { Configuration = full.Configuration });
        ProxyRequest exec = new() { Root = "/r", Id = "i", Process = new Oci.Config.Process { Args = ["a"], Cwd = "/" } };
        ProxyRequest read = JsonRecords.Read<ProxyRequest>(JsonRecords.Write(exec));
        Assert.Equal(["a"], read.Process!.Args!);
        Assert.Equal(exec with { Process = null }, read with { Process = null, Configuration = exec.Configuration });

        ControlCall call = new() { Verb = ControlVerb.Update, Signal = 9, All = true, Known = 3, Change = new() { Pids = new() { Limit = 7 } } };
        ControlCall called = JsonRecords.Read<ControlCall>(JsonRecords.Write(call));
        Assert.Equal(7, called.Change!.Pids!.Limit);
        Assert.Equal(call with { Change = null }, called with { Change = null });
        ControlReply reply = new() { Error = "e", Warnings = ["a", "b"], Kills = 4, Ended = true, Tracks = [new() { Process = "p", Steps = [new() { Name = "n", Begin = 1, End = 2, Thread = -3 }] }] };
        ControlReply replied = JsonRecords.Read<ControlReply>(JsonRecords.Write(reply));
        Assert.Equal(["a", "b"], replied.Warnings!);
        Assert.Equal(("p", new VmmControl.TraceStep { Name = "n", Begin = 1, End = 2, Thread = -3 }), (replied.Tracks!.Single().Process, replied.Tracks!.Single().Steps.Single()));
        Assert.Equal(reply with { Warnings = null, Tracks = null }, replied with { Warnings = null, Tracks = null });
        Assert.ThrowsAny<System.Text.Json.JsonException>(() => JsonRecords.Read<ControlCall>("{\"verb\":\"begin\"}"u8));
        Assert.ThrowsAny<System.Text.Json.JsonException>(() => JsonRecords.Read<ControlCall>("{\"verb\":0}"u8));
        Assert.ThrowsAny<System.Text.Json.JsonException>(() => JsonRecords.Read<ControlCall>("{}"u8));
        Assert.ThrowsAny<System.Text.Json.JsonException>(() => JsonRecords.Read<ControlCall>("{\"verb\":1}{}"u8));
    }

    [Fact]
    public void EveryValueOfAnEnumerationHasAName()
    {
        Check(ControlVerbs.Names);
        Check(ProxyMessage.Kinds);
        Check(ProxyMessage.Levels);
        Check(ContainerState.StatusNames);

        static void Check<T>(NamedValues<T> names)
            where T : struct, Enum
        {
            Assert.Equal(Enum.GetValues<T>(), names.Rows.Select(r => r.Value));
            Assert.Equal(names.Rows.Count, names.Rows.Select(r => r.Name).Distinct().Count());
        }
    }

    [Fact]
    public void AnotherVersionOfTheProtocolIsRefused()
    {
        using ContainerControlServer server = ContainerControlServer.Start(_folder.Path, _ => new ControlReply());
        ControlCall call = new() { Verb = ControlVerb.Stats, Version = 2 };
        Assert.Contains("speaks version 1 of the control protocol, this command version 2", Assert.Throws<SandboxException>(() => ControlClient.Call(_folder.Path, call)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ACallThatIsNotAnsweredSaysSo()
    {
        using SafeFd listener = UnixSocket.Listen(_folder["control"]);
        string message = Assert.Throws<SandboxException>(
            () => ControlClient.Call(_folder.Path, new ControlCall { Verb = ControlVerb.Stats }, TimeSpan.FromMilliseconds(50))).Message;
        Assert.Contains("its process on the host gave no answer within 0.05 s", message, StringComparison.Ordinal);
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

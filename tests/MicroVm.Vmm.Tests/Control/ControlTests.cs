using System.Net.Sockets;
using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Vmm.Control;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.Vmm.Tests.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Tests.Control;

public sealed class ControlTests
{
    [SkippableFact]
    public void Requests_are_answered_in_turn_and_mistakes_are_named()
    {
        TestMachines.RequireKvm();
        string path = Path.Combine(Path.GetTempPath(), $"vmm-control-{Environment.ProcessId}-{Guid.NewGuid():N}");
        using VirtualMachine machine = MachineBuilder.Build(TestMachines.Config(ElfBuilder.Kernel(TestMachines.Spin)));
        using (VmmControlServer server = VmmControlServer.Start(FileReference.FromPath(path), machine.Loop, new ControlOperations(machine, () => 7)))
        {
            VmmExitCode code = default;
            Thread thread = new(() => code = machine.Run());
            thread.Start();
            using (Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
            {
                socket.Connect(new UnixDomainSocketEndPoint(path));
                using NetworkStream stream = new(socket);
                using StreamReader reader = new(stream);

                // Several at once, one of them in two pieces.
                Send(socket, "{\"operation\":\"Info\"}\n{\"operation\":\"Pause\"}\n{\"operation\":\"In");
                Send(socket, "fo\"}\n\n{\"operation\":\"Resume\"}\n");
                Assert.Equal("running", Receive(reader).Info!.State);
                Assert.Null(Receive(reader).Error);
                VmmInfo info = Receive(reader).Info!;
                Assert.Equal(("paused", 7L), (info.State, info.StartMicroseconds));
                Assert.Contains("exits.interrupted", info.Counters.Keys);
                Assert.Null(Receive(reader).Error);

                Send(socket, "nonsense\n{\"operation\":\"Fly\"}\n{\"operation\":\"Info\",\"tga\":1}\n{\"operation\":\"AddExport\"}\n{\"operation\":\"RemoveExport\",\"tag\":\"x\"}\nnull\n");
                Assert.Contains("not a request", Receive(reader).Error, StringComparison.Ordinal);
                Assert.Contains("operation", Receive(reader).Error, StringComparison.Ordinal);
                Assert.Contains("tga", Receive(reader).Error, StringComparison.Ordinal);
                Assert.Contains("no descriptor", Receive(reader).Error, StringComparison.Ordinal);
                Assert.Contains("\"x\"", Receive(reader).Error, StringComparison.Ordinal);
                Assert.Contains("null", Receive(reader).Error, StringComparison.Ordinal);
            }

            // A second client after the first has gone; one that floods is cut off.
            using Socket flood = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            flood.Connect(new UnixDomainSocketEndPoint(path));
            byte[] junk = new byte[1 << 17];
            Action sendForEver = () =>
            {
                while (true)
                {
                    flood.Send(junk);
                }
            };
            Assert.ThrowsAny<SocketException>(sendForEver);

            using Socket last = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            last.Connect(new UnixDomainSocketEndPoint(path));
            Send(last, "{\"operation\":\"Stop\"}\n");
            using NetworkStream lastStream = new(last);
            using StreamReader lastReader = new(lastStream);
            Assert.Null(Receive(lastReader).Error);
            Assert.True(thread.Join(60_000));
            Assert.Equal(VmmExitCode.Stopped, code);
        }

        Assert.False(File.Exists(path));
    }

    private static void Send(Socket socket, string text) => socket.Send(System.Text.Encoding.UTF8.GetBytes(text));

    private static ControlResponse Receive(StreamReader reader) =>
        JsonSerializer.Deserialize(reader.ReadLine() ?? throw new EndOfStreamException(), VmmJson.Default.ControlResponse)!;
}

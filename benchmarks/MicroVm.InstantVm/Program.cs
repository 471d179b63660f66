using System.Globalization;
using System.Text;
using MicroVm.InstantVm;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Reading;

// usage: microvm-vmm --config-fd N
// In the place of the VMM and its guest: answers at once. What a runtime takes with it is the runtime's own.
const int MaxConfig = 1 << 20;
_ = Libc.prctl(Libc.PR_SET_PDEATHSIG, Libc.SIGKILL, 0, 0, 0);
VmmConfig config;
using (SafeFd fd = new(int.Parse(args[1], CultureInfo.InvariantCulture)))
{
    config = ConfigDocument.Config.Read(HostFile.ReadToEnd(fd, MaxConfig, "configuration"))!;
}

using EventLoop loop = new();
using GuestPorts ports = new(new SafeFd(config.Vsock!.Listener!.Fd!.Value), loop);
UnixSocket.TryConnect(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{config.Vsock.SocketPath}_{AgentClient.ReadyPort}")), out _)?.Dispose();
loop.Run();

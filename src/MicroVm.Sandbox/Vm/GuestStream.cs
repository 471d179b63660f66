using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Proxies;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Vm;

/// <summary>Streams to the agent that it joins to something in the guest.</summary>
internal static class GuestStream
{
    /// <summary>Connects a stream, which is non-blocking from then on.</summary>
    /// <param name="vsockPath">The VM's vsock socket.</param>
    /// <param name="join">Has the agent join the stream of this number.</param>
    /// <exception cref="LinuxException">The VMM is gone.</exception>
    /// <exception cref="TtrpcException">The agent takes no stream, or refused.</exception>
    internal static SafeFd Open(string vsockPath, Action<uint> join)
    {
        SafeFd stream = HybridVsock.Connect(vsockPath, AgentClient.StreamPort, GuestPatience.Call, out uint number);
        try
        {
            join(number);
            Check.Result(Libc.fcntl(stream.Value, Libc.F_SETFL, Libc.O_RDWR | Libc.O_NONBLOCK), "fcntl(F_SETFL)");
            return stream;
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }
}

using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Vm;

/// <summary>The other end of a VMM's control socket; owned. Any thread, one request at a time.</summary>
internal sealed unsafe class VmmControlClient(SafeFd socket) : IDisposable
{
    private const int LongestAnswer = 1 << 20;
    private readonly Lock _lock = new();

    /// <summary>Makes a request, and waits for its answer.</summary>
    /// <exception cref="SandboxException">The VMM refused, or is gone.</exception>
    internal ControlResponse Request(ControlRequest request, IReadOnlyList<SafeFd>? fds = null)
    {
        lock (_lock)
        {
            try
            {
                FdSender.Send(socket, [.. JsonSerializer.SerializeToUtf8Bytes(request, VmmJson.Default.ControlRequest), (byte)'\n'], fds ?? []);
                ControlResponse response = JsonSerializer.Deserialize(ReadLine(), VmmJson.Default.ControlResponse)!;
                return response.Error is null ? response : throw new SandboxException($"microvm-vmm: {response.Error}");
            }
            catch (Exception e) when (e is LinuxException or JsonException)
            {
                throw new SandboxException($"microvm-vmm does not answer: {e.Message}", e);
            }
        }
    }

    public void Dispose() => socket.Dispose();

    private ReadOnlySpan<byte> ReadLine()
    {
        byte[] buffer = new byte[4096];
        int count = 0;
        while (count < LongestAnswer)
        {
            if (count == buffer.Length)
            {
                Array.Resize(ref buffer, buffer.Length * 4);
            }

            nint n;
            fixed (byte* p = buffer)
            {
                n = Libc.recv(socket.Value, p + count, (nuint)(buffer.Length - count), 0);
            }

            if (Check.Retry(n))
            {
                continue;
            }

            if (Check.Result(n, "recv") == 0)
            {
                break;
            }

            count += (int)n;
            if (buffer[count - 1] == '\n')
            {
                return buffer.AsSpan(0, count - 1);
            }
        }

        throw new LinuxException(Errno.ECONNRESET, "recv");
    }
}

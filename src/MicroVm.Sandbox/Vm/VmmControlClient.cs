using System.Text.Json;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Writing;

namespace MicroVm.Sandbox.Vm;

/// <summary>
/// Client of a VMM's control socket, which it owns. Any thread, one request at a time. The VMM may be compromised; its answers are
/// treated as untrusted.
/// </summary>
/// <param name="socket">The socket.</param>
/// <param name="patience">How long an answer may take, to its end.</param>
internal sealed unsafe class VmmControlClient(SafeFd socket, TimeSpan patience) : IDisposable
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
                FdSender.Send(socket, [.. ConfigWriter.Write(request), (byte)'\n'], fds ?? []);
                ControlResponse response = JsonRecords.Read<ControlResponse>(ReadLine());
                return response.Error is null ? response : throw new SandboxException($"microvm-vmm: {response.Error}");
            }
            catch (Exception e) when (e is LinuxException or JsonException)
            {
                throw new SandboxException($"microvm-vmm does not answer: {e.Message}", e);
            }
        }
    }

    /// <summary>Shows files of the host to a VM that runs already, under the export's name.</summary>
    /// <exception cref="SandboxException">The VMM refused, or is gone.</exception>
    internal void AddExport(Export export, FsCache cache)
    {
        ControlRequest request = new()
        {
            Operation = ControlOperation.AddExport,
            Tag = Export.Tag,
            Name = export.Name,
            ReadOnly = export.ReadOnly,
            HidesMounts = export.HidesMounts,
            SharesSockets = export.ShowsSockets,
            Cache = cache,
        };
        _ = Request(request, [export.File]);
    }

    /// <summary>Takes them away again.</summary>
    /// <exception cref="SandboxException">The VMM refused, or is gone.</exception>
    internal void RemoveExport(string name) => _ = Request(new ControlRequest { Operation = ControlOperation.RemoveExport, Tag = Export.Tag, Name = name });

    /// <summary>What the VMM counts, by name.</summary>
    /// <exception cref="SandboxException">The VMM refused, or is gone.</exception>
    internal IReadOnlyDictionary<string, long> ReadCounters() =>
        Request(new ControlRequest { Operation = ControlOperation.Info }).Info?.Counters ?? throw new SandboxException("microvm-vmm does not tell its counters");

    public void Dispose() => socket.Dispose();

    private ReadOnlySpan<byte> ReadLine()
    {
        byte[] buffer = new byte[4096];
        int count = 0;
        long deadline = Environment.TickCount64 + (long)patience.TotalMilliseconds;
        Libc.pollfd pfd = new() { fd = socket.Value, events = Libc.POLLIN };
        while (count < LongestAnswer)
        {
            int ready = Libc.poll(&pfd, 1, (int)Math.Max(0, deadline - Environment.TickCount64));
            if (ready == 0)
            {
                throw new LinuxException(Errno.ETIMEDOUT, "recv");
            }

            if (Check.Retry(ready))
            {
                continue;
            }

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

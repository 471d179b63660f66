using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Streams;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Streams;

/// <summary>The streams of one process between the guest and the ends on the host. Owns the ends.</summary>
internal sealed class GuestStdio : IDisposable
{
    private readonly StdioEnds _ends;
    private readonly List<StreamPump> _outputs = [];
    private readonly List<SafeFd> _streams = [];
    private SafeFd? _input;
    private SafeFd? _output;
    private SafeFd? _error;
    private StreamPump? _inputPump;

    private GuestStdio(StdioEnds ends) => _ends = ends;

    /// <summary>For the agent; 0 is /dev/null.</summary>
    internal StdioPorts Ports { get; } = new();

    /// <summary>Connects the guest's ends. A terminal has input and output in any case: it is read by somebody, or its writers would wait.</summary>
    /// <exception cref="TtrpcException">The agent does not take streams.</exception>
    /// <exception cref="LinuxException">The VMM is gone.</exception>
    internal static GuestStdio Connect(string vsock, StdioEnds ends, bool terminal, TimeSpan timeout)
    {
        GuestStdio stdio = new(ends);
        try
        {
            if (ends.Input is not null || terminal)
            {
                (stdio._input, stdio.Ports.Stdin) = stdio.ConnectOne(vsock, timeout);
            }

            if (ends.Output is not null || terminal)
            {
                (stdio._output, stdio.Ports.Stdout) = stdio.ConnectOne(vsock, timeout);
            }

            if (ends.IsOne)
            {
                stdio.Ports.Stderr = terminal ? 0 : stdio.Ports.Stdout;
            }
            else if (ends.Error is not null && !terminal)
            {
                (stdio._error, stdio.Ports.Stderr) = stdio.ConnectOne(vsock, timeout);
            }

            return stdio;
        }
        catch
        {
            stdio._streams.ForEach(s => s.Dispose());
            throw;
        }
    }

    /// <summary>Starts the copying.</summary>
    internal void Start()
    {
        if (_output is not null)
        {
            _outputs.Add(StreamPump.FromGuest(_output, _ends.Output ?? Nowhere(), "stdout", _ends.EndOutput));
        }

        if (_error is not null)
        {
            _outputs.Add(StreamPump.FromGuest(_error, _ends.Error!, "stderr", _ends.EndError));
        }

        if (_input is not null && _ends.Input is not null)
        {
            _inputPump = StreamPump.ToGuest(_ends.Input, _input);
        }
    }

    /// <summary>Standard input ends when its other writers have.</summary>
    internal void CloseInput() => _ends.CloseInput();

    /// <summary>Waits for the rest of the output, once the process has ended.</summary>
    /// <returns>False when a stream stayed open without a word for <paramref name="quiet"/>.</returns>
    internal bool Drain(TimeSpan quiet) => _outputs.TrueForAll(p => p.Drain(quiet));

    /// <summary>The same, as long as the copying goes on; a reader that does not read is waited for no longer than <paramref name="blocked"/>.</summary>
    internal bool Settle(TimeSpan quiet, TimeSpan blocked) => _outputs.TrueForAll(p => p.Settle(quiet, blocked));

    /// <inheritdoc/>
    public void Dispose()
    {
        _inputPump?.Dispose();
        _outputs.ForEach(p => p.Dispose());
        _streams.ForEach(s => s.Dispose());
        _ends.Dispose();
    }

    private (SafeFd Stream, uint Port) ConnectOne(string vsock, TimeSpan timeout)
    {
        SafeFd stream = HybridVsock.Connect(vsock, AgentClient.StreamPort, timeout, out uint port);
        _streams.Add(stream);
        return (stream, port);
    }

    private SafeFd Nowhere()
    {
        SafeFd nowhere = SafeFd.From(Libc.open("/dev/null", Libc.O_WRONLY | Libc.O_CLOEXEC, 0), "open", "/dev/null");
        _streams.Add(nowhere);
        return nowhere;
    }
}

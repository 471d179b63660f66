using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Streams;

/// <summary>The vsock streams of one process, and their copying to and from streams of the host.</summary>
internal sealed class ContainerStreams : IDisposable
{
    private readonly (SafeFd Input, SafeFd Output, SafeFd Error) _host;
    private readonly SafeFd? _input;
    private readonly SafeFd? _output;
    private readonly SafeFd? _error;
    private readonly bool _terminal;
    private readonly List<StreamPump> _outputs = [];
    private StreamPump? _inputPump;

    private ContainerStreams(
        bool terminal, (SafeFd Input, SafeFd Output, SafeFd Error) host, (SafeFd? Fd, uint Port) input, (SafeFd? Fd, uint Port) output, (SafeFd? Fd, uint Port) error)
    {
        _terminal = terminal;
        _host = host;
        (_input, _output, _error) = (input.Fd, output.Fd, error.Fd);
        Ports = new StdioPorts { Stdin = input.Port, Stdout = output.Port, Stderr = error.Port };
    }

    /// <summary>For the agent.</summary>
    internal StdioPorts Ports { get; }

    /// <summary>
    /// Connects what is not /dev/null. With a terminal there is no standard error; where the caller has one file for output and error,
    /// the guest has one pipe for both, which keeps their order. The host's streams are borrowed.
    /// </summary>
    /// <exception cref="TtrpcException">The agent does not take streams.</exception>
    /// <exception cref="LinuxException">The VMM is gone.</exception>
    internal static ContainerStreams Connect(string vsockPath, bool terminal, (SafeFd Input, SafeFd Output, SafeFd Error) host, TimeSpan timeout)
    {
        (SafeFd?, uint) input = default, output = default;
        try
        {
            input = ConnectOne(vsockPath, host.Input, always: terminal, timeout);
            output = ConnectOne(vsockPath, host.Output, always: terminal, timeout);
            (SafeFd?, uint) error = terminal ? default
                : output.Item1 is not null && HostStreams.AreOne(host.Output, host.Error) ? (null, output.Item2)
                : ConnectOne(vsockPath, host.Error, always: false, timeout);
            return new ContainerStreams(terminal, host, input, output, error);
        }
        catch
        {
            input.Item1?.Dispose();
            output.Item1?.Dispose();
            throw;
        }
    }

    /// <summary>Starts the copying.</summary>
    internal void Start()
    {
        if (_output is not null)
        {
            bool both = Ports.Stderr == Ports.Stdout;
            _outputs.Add(StreamPump.FromGuest(_output, _host.Output, "stdout", () => End(_host.Output, both ? _host.Error : null)));
        }

        if (_error is not null)
        {
            _outputs.Add(StreamPump.FromGuest(_error, _host.Error, "stderr", () => End(_host.Error)));
        }

        if (_input is not null)
        {
            _inputPump = StreamPump.ToGuest(_host.Input, _input, () => End(_host.Input));
        }
    }

    /// <summary>Waits for the rest of the output, once the process has ended.</summary>
    /// <returns>False when a stream stayed open without a word for <paramref name="quiet"/>, or without an end.</returns>
    internal bool Drain(TimeSpan quiet) => _outputs.TrueForAll(p => p.Drain(quiet));

    public void Dispose()
    {
        _inputPump?.Dispose();
        _outputs.ForEach(p => p.Dispose());
        _input?.Dispose();
        _output?.Dispose();
        _error?.Dispose();
    }

    /// <summary>The process has closed its end: so does this one. A terminal stays, since its size is asked for.</summary>
    private void End(SafeFd stream, SafeFd? second = null)
    {
        if (!_terminal)
        {
            HostStreams.End(stream);
            if (second is not null)
            {
                HostStreams.End(second);
            }
        }
    }

    private static (SafeFd? Fd, uint Port) ConnectOne(string vsockPath, SafeFd host, bool always, TimeSpan timeout)
    {
        if (!always && HostStreams.IsNull(host))
        {
            return default;
        }

        SafeFd fd = HybridVsock.Connect(vsockPath, AgentClient.StreamPort, timeout, out uint port);
        return (fd, port);
    }
}

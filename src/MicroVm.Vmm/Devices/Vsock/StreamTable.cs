using MicroVm.Linux;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>All streams alive, and those among them that the guest can name, by their ports. Bounded; keeps some for reuse.</summary>
internal sealed class StreamTable(Func<VsockStream> create)
{
    private const int MaxPooled = 64;
    private readonly HashSet<VsockStream> _all = [];
    private readonly Dictionary<ulong, VsockStream> _flows = [];
    private readonly Stack<VsockStream> _pool = new();
    private uint _nextHostPort = VsockLimits.FirstHostPort;
    private long _count;

    /// <summary>How many streams are alive, for any thread.</summary>
    public long Count => Volatile.Read(ref _count);

    /// <summary>The guest can name some.</summary>
    public bool HasFlows => _flows.Count != 0;

    /// <summary>No more streams are to be opened.</summary>
    public bool IsFull => _all.Count >= VsockLimits.MaxConnections;

    /// <summary>Bytes of credit for the guest on the next stream.</summary>
    public uint NextBuffer => _all.Count < VsockLimits.FullBufferConnections ? VsockLimits.Buffer : (uint)VsockLimits.SmallBuffer;

    /// <summary>An object for a new stream: it goes to <see cref="Add"/>, or back by <see cref="Recycle"/>.</summary>
    public VsockStream Take() => _pool.TryPop(out VsockStream? pooled) ? pooled : create();

    /// <summary>A stream was opened.</summary>
    public void Add(VsockStream stream)
    {
        _all.Add(stream);
        Volatile.Write(ref _count, _all.Count);
    }

    /// <summary>The stream that the guest means by these ports; null when there is none.</summary>
    public VsockStream? Find(uint hostPort, uint guestPort) => _flows.GetValueOrDefault(Key(hostPort, guestPort));

    /// <summary>Lets the guest name a stream by its ports.</summary>
    public void AddFlow(VsockStream stream) => _flows.Add(Key(stream.HostPort, stream.GuestPort), stream);

    /// <summary>The stream's ports are free again, if they were its own.</summary>
    public void RemoveFlow(VsockStream stream)
    {
        ulong key = Key(stream.HostPort, stream.GuestPort);
        if (_flows.TryGetValue(key, out VsockStream? named) && named == stream)
        {
            _flows.Remove(key);
        }
    }

    /// <summary>Forgets a stream, whose object is recycled when nothing else refers to it any more.</summary>
    public void Remove(VsockStream stream)
    {
        RemoveFlow(stream);
        _all.Remove(stream);
        Volatile.Write(ref _count, _all.Count);
    }

    /// <summary>Takes a closed stream's object back.</summary>
    public void Recycle(VsockStream stream)
    {
        stream.Clear();
        if (_pool.Count < MaxPooled)
        {
            _pool.Push(stream);
        }
    }

    /// <summary>All streams alive; they may be removed meanwhile.</summary>
    public VsockStream[] Snapshot() => [.. _all];

    /// <summary>A port for a host client. The number names the stream to the agent: no other live stream has it, whatever its guest port.</summary>
    public uint FreshHostPort()
    {
        while (true)
        {
            uint port = _nextHostPort;
            _nextHostPort = port == VsockLimits.LastHostPort ? VsockLimits.FirstHostPort : port + 1;
            bool taken = false;
            foreach (VsockStream other in _all)
            {
                taken |= other.HostPort == port;
            }

            if (!taken)
            {
                return port;
            }
        }
    }

    private static ulong Key(uint hostPort, uint guestPort) => ((ulong)hostPort << 32) | guestPort;
}

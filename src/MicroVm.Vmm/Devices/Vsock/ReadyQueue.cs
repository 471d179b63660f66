namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>Streams that have something to send and wait for a receive buffer, first come, first served. Allocates nothing.</summary>
internal sealed class ReadyQueue
{
    private VsockStream? _head;
    private VsockStream? _tail;

    /// <summary>None waits.</summary>
    public bool IsEmpty => _head is null;

    /// <summary>Adds a stream at the end; false when it waits already.</summary>
    public bool TryAdd(VsockStream stream)
    {
        if (stream.IsQueued)
        {
            return false;
        }

        stream.IsQueued = true;
        if (_tail is null)
        {
            _head = stream;
        }
        else
        {
            _tail.NextReady = stream;
        }

        _tail = stream;
        return true;
    }

    /// <summary>Takes the first stream; null when none waits.</summary>
    public VsockStream? Take()
    {
        VsockStream? stream = _head;
        if (stream is not null)
        {
            _head = stream.NextReady;
            _tail = _head is null ? null : _tail;
            stream.NextReady = null;
            stream.IsQueued = false;
        }

        return stream;
    }
}

using System.Numerics;

namespace MicroVm.Vmm.Devices.Mem;

/// <summary>
/// Which blocks of a virtio-mem region are plugged, and the sizes that decide on requests (virtio 1.2, 5.15.5). The thread that serves the
/// device and the one that asks for another size share it: every member takes its lock.
/// </summary>
internal sealed class PluggedBlocks(ulong address, ulong regionSize)
{
    /// <summary>Unit of plugging: Linux manages memory by pageblocks of 2 MiB.</summary>
    public const ulong BlockSize = 2ul << 20;

    private readonly Lock _lock = new();
    private readonly ulong[] _plugged = new ulong[(regionSize / BlockSize / 64) + 1];
    private ulong _pluggedSize;
    private ulong _usableSize;
    private ulong _requestedSize;

    /// <summary>Bytes that are plugged.</summary>
    public ulong PluggedSize
    {
        get
        {
            lock (_lock)
            {
                return _pluggedSize;
            }
        }
    }

    /// <summary>Asks for another size.</summary>
    /// <param name="requested">Bytes that should be plugged: whole blocks.</param>
    /// <param name="usable">From the start of the region on, bytes that there is memory behind; never less than before.</param>
    public void Request(ulong requested, ulong usable)
    {
        lock (_lock)
        {
            (_requestedSize, _usableSize) = (requested, Math.Max(_usableSize, usable));
        }
    }

    /// <summary>The configuration that the driver reads.</summary>
    public MemConfigSpace Describe()
    {
        lock (_lock)
        {
            return new MemConfigSpace
            {
                BlockSize = BlockSize,
                Address = address,
                RegionSize = regionSize,
                UsableRegionSize = _usableSize,
                PluggedSize = _pluggedSize,
                RequestedSize = _requestedSize,
            };
        }
    }

    /// <summary>Plugs blocks that are all unplugged, as long as no more is plugged then than was asked for (5.15.6.3).</summary>
    public MemResponseType Plug(ulong at, ushort count)
    {
        lock (_lock)
        {
            if (!TryIndex(at, count, out int first) || Count(first, count) != 0)
            {
                return MemResponseType.Error;
            }

            ulong size = count * BlockSize;
            if (_pluggedSize > _requestedSize || size > _requestedSize - _pluggedSize)
            {
                return MemResponseType.Nack;
            }

            Set(first, count, true);
            return MemResponseType.Ack;
        }
    }

    /// <summary>Unplugs blocks that are all plugged (5.15.6.4).</summary>
    public MemResponseType Unplug(ulong at, ushort count)
    {
        lock (_lock)
        {
            if (!TryIndex(at, count, out int first) || Count(first, count) != count)
            {
                return MemResponseType.Error;
            }

            Set(first, count, false);
            return MemResponseType.Ack;
        }
    }

    /// <summary>Unplugs all; the bytes from the start of the region on that may have been plugged.</summary>
    public ulong UnplugAll()
    {
        lock (_lock)
        {
            _plugged.AsSpan().Clear();
            _pluggedSize = 0;
            return _usableSize;
        }
    }

    /// <summary>Tells the state of blocks (5.15.6.5).</summary>
    public MemResponseType Ask(ulong at, ushort count, out MemState state)
    {
        lock (_lock)
        {
            state = default;
            if (!TryIndex(at, count, out int first))
            {
                return MemResponseType.Error;
            }

            int plugged = Count(first, count);
            state = plugged == count ? MemState.Plugged : plugged == 0 ? MemState.Unplugged : MemState.Mixed;
            return MemResponseType.Ack;
        }
    }

    // A range is right when it is of whole blocks, at least one, all in the usable part of the region.
    private bool TryIndex(ulong at, ushort count, out int first)
    {
        ulong offset = at - address;
        bool right = at >= address && offset % BlockSize == 0 && count > 0 && offset < _usableSize && count * BlockSize <= _usableSize - offset;
        first = right ? (int)(offset / BlockSize) : 0;
        return right;
    }

    private int Count(int first, int count)
    {
        int plugged = 0;
        for (int i = first; i < first + count; i++)
        {
            plugged += (int)((_plugged[i / 64] >> (i % 64)) & 1);
        }

        return plugged;
    }

    private void Set(int first, int count, bool plugged)
    {
        for (int i = first; i < first + count; i++)
        {
            ulong bit = 1ul << (i % 64);
            _plugged[i / 64] = plugged ? _plugged[i / 64] | bit : _plugged[i / 64] & ~bit;
        }

        _pluggedSize = (ulong)_plugged.Sum(w => BitOperations.PopCount(w)) * BlockSize;
    }
}

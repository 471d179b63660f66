using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Requests;

/// <summary>What a virtio-fs device did. Any thread.</summary>
internal sealed class FsCounters
{
    private static readonly string[] Names = MakeNames();
    private readonly long[] _requests = new long[Names.Length];
    private readonly long[] _unsupported = new long[Names.Length];
    private long _malformed;
    private long _bytesRead;
    private long _bytesWritten;

    /// <summary>A request arrived.</summary>
    public void Request(FuseOpcode opcode) => Interlocked.Increment(ref _requests[IndexOf(opcode)]);

    /// <summary>A request was answered with ENOSYS.</summary>
    public void Unsupported(FuseOpcode opcode) => Interlocked.Increment(ref _unsupported[IndexOf(opcode)]);

    /// <summary>A request broke the protocol's rules.</summary>
    public void Malformed() => Interlocked.Increment(ref _malformed);

    /// <summary>File contents went to the guest.</summary>
    public void BytesRead(long count) => Interlocked.Add(ref _bytesRead, count);

    /// <summary>File contents came from the guest.</summary>
    public void BytesWritten(long count) => Interlocked.Add(ref _bytesWritten, count);

    /// <summary>How many requests of an operation arrived.</summary>
    public long RequestsOf(FuseOpcode opcode) => Volatile.Read(ref _requests[IndexOf(opcode)]);

    /// <summary>How many requests broke the protocol's rules.</summary>
    public long MalformedCount => Volatile.Read(ref _malformed);

    /// <summary>How many requests of an operation were answered with ENOSYS.</summary>
    public long UnsupportedOf(FuseOpcode opcode) => Volatile.Read(ref _unsupported[IndexOf(opcode)]);

    /// <summary>Gives every counter that moved to <paramref name="add"/>, as <c>prefix.lookup</c>, <c>prefix.unsupported.ioctl</c>...</summary>
    public void Collect(string prefix, Action<string, long> add)
    {
        for (int i = 0; i < Names.Length; i++)
        {
            Add(add, $"{prefix}.{Names[i]}", ref _requests[i]);
            Add(add, $"{prefix}.unsupported.{Names[i]}", ref _unsupported[i]);
        }

        Add(add, prefix + ".malformed", ref _malformed);
        Add(add, prefix + ".read.bytes", ref _bytesRead);
        Add(add, prefix + ".write.bytes", ref _bytesWritten);
    }

    private static void Add(Action<string, long> add, string name, ref long counter)
    {
        long value = Volatile.Read(ref counter);
        if (value != 0)
        {
            add(name, value);
        }
    }

    // Numbers above the highest operation known share the last counter.
    private static int IndexOf(FuseOpcode opcode) => (int)Math.Min((uint)opcode, (uint)Names.Length - 1);

    private static string[] MakeNames()
    {
        string[] names = new string[64];
        for (int i = 0; i < names.Length; i++)
        {
            names[i] = Enum.IsDefined((FuseOpcode)i) ? ((FuseOpcode)i).ToString()["FUSE_".Length..].ToLowerInvariant() : $"opcode{i}";
        }

        names[^1] = "other";
        return names;
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Requests;

/// <summary>
/// The request that a thread is working on: its header and arguments, copied out of guest memory before anything is
/// checked, and its answer. One for each thread, used again for every request; belongs to the thread that made it.
/// </summary>
internal sealed class FuseRequest : IDisposable
{
    /// <summary>Size of the scratch buffer: the largest extended attribute or list of their names.</summary>
    public const int ScratchLength = Libc.XATTR_SIZE_MAX;

    /// <summary>A handler's result: the request has no answer.</summary>
    public const int NoReply = int.MinValue;

    /// <summary>A handler's result: the answer comes later, and the chain is kept until then.</summary>
    public const int Deferred = int.MinValue + 1;

    /// <summary>Most records that <see cref="Vectors"/> holds.</summary>
    public const int MaxVectors = Libc.IOV_MAX;

    private const int NamesLength = FuseNames.MaxTarget + FuseNames.MaxLength + 1;
    private DescriptorChain _chain = null!;
    private ulong _nodeId;
    private volatile bool _isStopping;

    /// <summary>Prepares the calling thread for serving requests.</summary>
    /// <exception cref="LinuxException">The thread's credentials cannot be set up.</exception>
    /// <param name="procSelfFd">/proc/self/fd, borrowed.</param>
    /// <param name="mayWait">Who serves the queue finishes requests that are <see cref="Deferred"/>.</param>
    // Safe: the three buffers are ours until Free.
    public unsafe FuseRequest(SafeFd procSelfFd, bool mayWait)
    {
        MayWait = mayWait;
        Credentials = new ThreadCredentials(procSelfFd);
        Scratch = (byte*)NativeMemory.Alloc(ScratchLength);
        Names = (byte*)NativeMemory.Alloc(NamesLength);
        Vectors = (Libc.iovec*)NativeMemory.Alloc(MaxVectors, (nuint)sizeof(Libc.iovec));
    }

    ~FuseRequest() => Free();

    /// <summary>Requests may be answered later.</summary>
    public bool MayWait { get; }

    /// <summary>The request's chain.</summary>
    public DescriptorChain Chain => _chain;

    /// <summary>Who this thread is to the host.</summary>
    public ThreadCredentials Credentials { get; }

    /// <summary>The request's header.</summary>
    public fuse_in_header Header { get; private set; }

    /// <summary>The inode that the request is about.</summary>
    public ulong NodeId => _nodeId;

    /// <summary>The operation.</summary>
    public FuseOpcode Opcode => (FuseOpcode)Header.opcode;

    /// <summary>Bytes behind the header.</summary>
    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe ulong ArgumentLength => _chain.ReadableLength - (ulong)sizeof(fuse_in_header);

    /// <summary>Bytes that the answer's payload may have, behind its header.</summary>
    public ulong Room { get; private set; }

    /// <summary>Room for <see cref="ScratchLength"/> bytes.</summary>
    // Safe: handed out, not followed.
    public unsafe byte* Scratch { get; private set; }

    /// <summary>Room for <see cref="MaxVectors"/> records.</summary>
    // Safe: handed out, not followed.
    public unsafe Libc.iovec* Vectors { get; private set; }

    // Safe: handed out, not followed.
    private unsafe byte* Names { get; set; }

    /// <summary>The device is being reset: a request that goes on in steps ends with the one that it is at.</summary>
    public bool IsStopping => _isStopping;

    /// <summary>Ends what goes on in steps. Any thread.</summary>
    public void Stop() => _isStopping = true;

    /// <summary>Takes a new request's header.</summary>
    /// <returns>False when it is too short or does not have the length that it says.</returns>
    // Safe: the header is a local.
    public unsafe bool TryStart(DescriptorChain chain)
    {
        _chain = chain;
        Unsafe.SkipInit(out fuse_in_header header);
        bool complete = chain.CopyFromReadable(0, new Span<byte>(&header, sizeof(fuse_in_header))) == sizeof(fuse_in_header);
        if (!complete)
        {
            header = default;
        }

        Header = header;
        _nodeId = header.nodeid;
        Room = chain.WritableLength < (ulong)sizeof(fuse_out_header) ? 0 : chain.WritableLength - (ulong)sizeof(fuse_out_header);
        return complete && header.len == chain.ReadableLength;
    }

    /// <summary>Copies an argument struct from <paramref name="offset"/> behind the header; false when the request is shorter.</summary>
    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe bool TryRead<T>(ulong offset, out T value)
        where T : unmanaged
    {
        Unsafe.SkipInit(out value);
        return _chain.CopyFromReadable(
            (ulong)sizeof(fuse_in_header) + offset, MemoryMarshal.AsBytes(new Span<T>(ref value))) == sizeof(T);
    }

    /// <summary>Copies up to <paramref name="length"/> argument bytes to <paramref name="destination"/>; how many there were.</summary>
    // Safe: callers own length bytes at destination.
    public unsafe int Read(ulong offset, byte* destination, int length) =>
        _chain.CopyFromReadable((ulong)sizeof(fuse_in_header) + offset, new Span<byte>(destination, length));

    /// <summary>
    /// Takes the one name that makes up the rest of the request from <paramref name="offset"/>, and checks it to be one path
    /// component.
    /// </summary>
    /// <param name="offset">Where it starts behind the header.</param>
    /// <param name="name">The name with its NUL; valid until the next request.</param>
    /// <returns>0, or a negative errno.</returns>
    // Safe: ReadStrings says how long the name is.
    public unsafe int ReadName(int offset, out byte* name)
    {
        int result = ReadStrings(offset, 1, out name, out int length, out _, out _);
        return result != 0 ? result : FuseNames.CheckComponent(new ReadOnlySpan<byte>(name, length));
    }

    /// <summary>The same for two names.</summary>
    // Safe: as for ReadName.
    public unsafe int ReadNames(int offset, out byte* first, out byte* second)
    {
        int result = ReadStrings(offset, 2, out first, out int firstLength, out second, out int secondLength);
        result = result != 0 ? result : FuseNames.CheckComponent(new ReadOnlySpan<byte>(first, firstLength));
        return result != 0 ? result : FuseNames.CheckComponent(new ReadOnlySpan<byte>(second, secondLength));
    }

    /// <summary>The first or second name of the request, once it was read.</summary>
    // Safe: the span covers the buffer, and checks each access.
    public unsafe ReadOnlySpan<byte> NameAt(int index)
    {
        ReadOnlySpan<byte> names = new(Names, NamesLength);
        int length = names.IndexOf((byte)0);
        if (index == 0 || length < 0)
        {
            return names[..Math.Max(length, 0)];
        }

        names = names[(length + 1)..];
        return names[..Math.Max(names.IndexOf((byte)0), 0)];
    }

    /// <summary>
    /// Takes the one or two strings, each ended by a NUL, that make up the rest of the request.
    /// </summary>
    /// <returns>0, or a negative errno: a string is missing or not ended, or something follows.</returns>
    // Safe: the length is at most NamesLength; each string ends in a NUL within it.
    public unsafe int ReadStrings(int offset, int count, out byte* first, out int firstLength, out byte* second, out int secondLength)
    {
        first = Names;
        second = null;
        firstLength = 0;
        secondLength = 0;
        if (ArgumentLength <= (ulong)offset)
        {
            return -(int)Errno.EINVAL;
        }

        ulong length = ArgumentLength - (ulong)offset;
        if (length > NamesLength)
        {
            return -(int)Errno.ENAMETOOLONG;
        }

        Span<byte> bytes = new(Names, (int)length);
        _ = _chain.CopyFromReadable((ulong)(sizeof(fuse_in_header) + offset), bytes);
        firstLength = bytes.IndexOf((byte)0);
        if (firstLength < 0)
        {
            return -(int)Errno.EINVAL;
        }

        int used = firstLength + 1;
        if (count == 2)
        {
            second = Names + used;
            secondLength = bytes[used..].IndexOf((byte)0);
            if (secondLength < 0)
            {
                return -(int)Errno.EINVAL;
            }

            used += secondLength + 1;
        }

        return used == bytes.Length ? 0 : -(int)Errno.EINVAL;
    }

    /// <summary>Describes argument bytes as iovecs in <see cref="Vectors"/>, at most <see cref="MaxVectors"/>; how many.</summary>
    // Safe: the chain fills at most MaxVectors vectors.
    public unsafe int SliceArguments(ulong offset, ulong length) => _chain.SliceReadable(
        (ulong)sizeof(fuse_in_header) + offset, length, new Span<Libc.iovec>(Vectors, MaxVectors));

    /// <summary>Describes payload bytes of the answer in the same way.</summary>
    // Safe: as for SliceArguments.
    public unsafe int SlicePayload(ulong offset, ulong length) => _chain.SliceWritable(
        (ulong)sizeof(fuse_out_header) + offset, length, new Span<Libc.iovec>(Vectors, MaxVectors));

    /// <summary>Answers with a struct.</summary>
    /// <returns>The payload's length, for the handler to return; -EINVAL when the driver left no room for it.</returns>
    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe int Reply<T>(in T value)
        where T : unmanaged => Write(0, value) ? sizeof(T) : -(int)Errno.EINVAL;

    /// <summary>Answers with bytes.</summary>
    /// <returns>As <see cref="Reply{T}"/>.</returns>
    // Safe: passed on, not followed.
    public unsafe int Reply(byte* bytes, int length) => Write(0, bytes, length) ? length : -(int)Errno.EINVAL;

    /// <summary>Writes a struct at <paramref name="offset"/> of the payload; false when there is no room.</summary>
    // Safe: the value is pinned while it is copied.
    public unsafe bool Write<T>(ulong offset, in T value)
        where T : unmanaged
    {
        fixed (T* p = &value)
        {
            return Write(offset, (byte*)p, sizeof(T));
        }
    }

    /// <summary>Writes bytes at <paramref name="offset"/> of the payload; false when there is no room.</summary>
    // Safe: callers own length bytes, which are read only; the chain checks where they go.
    public unsafe bool Write(ulong offset, byte* bytes, int length) =>
        offset + (ulong)length <= Room
        && _chain.CopyToWritable((ulong)sizeof(fuse_out_header) + offset, new ReadOnlySpan<byte>(bytes, length)) == length;

    /// <summary>Ends the request: writes the answer's header.</summary>
    /// <param name="result">Length of the payload, which is in place; or a negative errno; or <see cref="NoReply"/>.</param>
    /// <returns>Bytes written into the chain, for the used ring.</returns>
    // Safe: the header is a local.
    public unsafe uint Finish(int result)
    {
        if (result == NoReply || _chain.WritableLength < (ulong)sizeof(fuse_out_header))
        {
            return 0;
        }

        fuse_out_header header = new()
        {
            len = (uint)(sizeof(fuse_out_header) + Math.Max(result, 0)),
            error = Math.Min(result, 0),
            unique = Header.unique,
        };
        _ = _chain.CopyToWritable(0, new ReadOnlySpan<byte>(&header, sizeof(fuse_out_header)));
        return header.len;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    // Safe: frees what the constructor made; the pointers are null afterwards.
    private unsafe void Free()
    {
        NativeMemory.Free(Scratch);
        NativeMemory.Free(Names);
        NativeMemory.Free(Vectors);
        Scratch = null;
        Names = null;
        Vectors = null;
    }
}

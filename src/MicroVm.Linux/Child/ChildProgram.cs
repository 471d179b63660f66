using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Child;

/// <summary>
/// The list of system calls that a child carries out, with everything they point to, in memory of its own. Its owner
/// disposes of it when the child has exec'd or ended.
/// </summary>
public sealed unsafe class ChildProgram : IDisposable
{
    // Strings and records of a process are limited by execve to a quarter of its stack limit; 8 MiB is above that.
    private const nuint Capacity = 8 << 20;
    private const int MaxSteps = 168;
    private const int HeaderSize = 16;
    private readonly nuint _data = HeaderSize + (MaxSteps * (nuint)sizeof(ChildStep));
    private byte* _base;
    private nuint _used;
    private int _count;

    /// <summary>Creates an empty program that reports on descriptor <paramref name="reportFd"/>.</summary>
    /// <param name="reportFd">Number of the descriptor in the child.</param>
    /// <param name="sharedMemory">The child will not share the caller's memory, but must see later changes.</param>
    /// <exception cref="LinuxException">There is no memory.</exception>
    public ChildProgram(int reportFd, bool sharedMemory)
    {
        int kind = sharedMemory ? Libc.MAP_SHARED : Libc.MAP_PRIVATE;
        void* memory = Libc.mmap(null, Capacity, Libc.PROT_READ | Libc.PROT_WRITE, kind | Libc.MAP_ANONYMOUS | Libc.MAP_NORESERVE, -1, 0);
        if ((nint)memory == -1)
        {
            Check.Throw("mmap");
        }

        _base = (byte*)memory;
        _used = _data;
        ((uint*)_base)[2] = (uint)reportFd;
    }

    /// <summary>The steps, for <see cref="ChildCode.Spawn"/>.</summary>
    public ChildStep* Steps => (ChildStep*)(_base + HeaderSize);

    /// <summary>Appends a system call.</summary>
    public ChildStep* Add(uint id, StepMode mode, long number, nint a0 = 0, nint a1 = 0, nint a2 = 0, nint a3 = 0, nint a4 = 0)
    {
        if (_count == MaxSteps)
        {
            throw new InvalidOperationException($"a child has more than {MaxSteps} steps");
        }

        ChildStep* step = Steps + _count++;
        step->Number = (nint)number;
        step->Arguments[0] = a0;
        step->Arguments[1] = a1;
        step->Arguments[2] = a2;
        step->Arguments[3] = a3;
        step->Arguments[4] = a4;
        step->Id = id;
        step->Mode = (uint)mode;
        return step;
    }

    /// <summary>Appends a step that reports a milestone.</summary>
    public void AddReport(uint id, int fd) => Add(id, StepMode.Positive, Libc.SYS_write, fd, Record([(int)id, 0]), 8);

    /// <summary>Appends a step that waits for one byte.</summary>
    public void AddWait(int fd) => Add(0, StepMode.Positive, Libc.SYS_read, fd, (nint)Allocate(8), 1);

    /// <summary>A copy of plain records; its address.</summary>
    /// <exception cref="LinuxException">E2BIG: the program's memory is full.</exception>
    public nint Record<T>(ReadOnlySpan<T> values)
        where T : unmanaged
    {
        byte* p = Allocate((nuint)values.Length * (nuint)sizeof(T));
        values.CopyTo(new Span<T>(p, values.Length));
        return (nint)p;
    }

    /// <summary>A NUL-terminated copy of a string; its address.</summary>
    /// <exception cref="LinuxException">E2BIG: the program's memory is full. EINVAL: the string holds a NUL.</exception>
    public nint String(string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        if (value.Contains('\0', StringComparison.Ordinal))
        {
            throw new LinuxException(Errno.EINVAL, "string with a NUL byte", value.Replace("\0", "\\0", StringComparison.Ordinal));
        }

        int length = Encoding.UTF8.GetByteCount(value);
        byte* p = Allocate((nuint)length + 1, align: false);
        Encoding.UTF8.GetBytes(value, new Span<byte>(p, length));
        p[length] = 0;
        return (nint)p;
    }

    /// <summary>A NULL-terminated array of pointers to copies of strings; its address.</summary>
    /// <exception cref="LinuxException">As <see cref="String"/>.</exception>
    public nint Strings(IReadOnlyList<string> values)
    {
        ArgumentNullException.ThrowIfNull(values);
        nint* array = (nint*)Allocate((nuint)(values.Count + 1) * (nuint)sizeof(nint));
        for (int i = 0; i < values.Count; i++)
        {
            array[i] = String(values[i]);
        }

        array[values.Count] = 0;
        return (nint)array;
    }

    /// <summary>Zeroed memory, eight-byte aligned unless told otherwise.</summary>
    /// <exception cref="LinuxException">E2BIG: the program's memory is full.</exception>
    public byte* Allocate(nuint size, bool align = true)
    {
        nuint at = align ? (_used + 7) & ~(nuint)7 : _used;
        if (size > Capacity || at > Capacity - size)
        {
            throw new LinuxException(Errno.E2BIG, "the process's arguments and environment");
        }

        _used = at + size;
        return _base + at;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_base != null)
        {
            _ = Libc.munmap(_base, Capacity);
            _base = null;
        }
    }
}

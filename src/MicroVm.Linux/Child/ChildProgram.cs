using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Child;

/// <summary>
/// The list of system calls that a child carries out, with everything they point to, in memory of its own. Its owner
/// disposes of it when the child has exec'd or ended. The child may change all of it at any time.
/// </summary>
public sealed unsafe class ChildProgram : IDisposable
{
    // Strings and records of a process are limited by execve to a quarter of its stack limit; 8 MiB is above that.
    private const nuint DataCapacity = ChildCode.ProgramSize;

    // What every program has room for: both sets of capabilities, limits, namespaces, streams.
    private const int UsualSteps = 168;

    // What most programs take, brought in at once: a fault for each page costs more.
    private const nuint Usual = 32 << 10;
    private readonly StepList _steps;
    private readonly nint _shift;
    private readonly SafeFd? _file;
    private readonly nuint _capacity;
    private byte* _base;
    private nuint _used;

    /// <summary>Creates an empty program for a child that shares the caller's memory (CLONE_VM).</summary>
    /// <param name="reportFd">Number of the descriptor for reports in the child.</param>
    /// <param name="moreSteps">How many steps there may be beside the usual ones: whatever a bundle may have many of.</param>
    /// <exception cref="LinuxException">There is no memory.</exception>
    public ChildProgram(int reportFd, int moreSteps = 0)
        : this(reportFd, UsualSteps + moreSteps, DataCapacity + StepList.SizeOf(UsualSteps + moreSteps), Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS, file: null)
    {
    }

    private ChildProgram(int reportFd, int steps, nuint capacity, int kind, SafeFd? file)
    {
        _capacity = capacity;
        void* memory = Libc.mmap(null, capacity, Libc.PROT_READ | Libc.PROT_WRITE, kind | Libc.MAP_NORESERVE, file?.Value ?? -1, 0);
        if ((nint)memory == -1)
        {
            Check.Throw("mmap");
        }

        _base = (byte*)memory;
        _file = file;
        _shift = file is null ? 0 : ChildCode.ProgramAddress - (nint)memory;

        // A kernel that refuses brings them in as they are touched.
        _ = Libc.madvise(memory, Usual, Libc.MADV_POPULATE_WRITE);
        _steps = new StepList(_base, steps, reportFd);
        _used = StepList.SizeOf(steps);
    }

    /// <summary>The memory of a program for <see cref="ChildCode.Executable"/>, which finds it at descriptor 4.</summary>
    public SafeFd File => _file ?? throw new InvalidOperationException("the program has no file");

    /// <summary>The steps, for <see cref="ChildCode.Spawn"/>.</summary>
    public ChildStep* Steps => _steps.First;

    /// <summary>The step that failed and its errno, where a report could not be made of it; OK when none did.</summary>
    public (uint Id, Errno Errno) Failure => _steps.Failure;

    /// <summary>Creates an empty program for a child that execs <see cref="ChildCode.Executable"/> and has nothing else of the caller's memory.</summary>
    /// <param name="reportFd">Number of the descriptor for reports in the child.</param>
    /// <param name="moreSteps">As for a child that shares memory.</param>
    /// <exception cref="LinuxException">There is no memory, or no descriptor is free. E2BIG: the steps do not fit.</exception>
    public static ChildProgram ForExecutable(int reportFd, int moreSteps = 0)
    {
        if (StepList.SizeOf(UsualSteps + moreSteps) > DataCapacity / 2)
        {
            throw new LinuxException(Errno.E2BIG, $"{moreSteps} steps between clone and exec");
        }

        SafeFd file = MemoryFile.CreateSized("child-program", (long)DataCapacity);
        try
        {
            return new ChildProgram(reportFd, UsualSteps + moreSteps, DataCapacity, Libc.MAP_SHARED, file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Appends a system call.</summary>
    public ChildStep* Add(uint id, StepMode mode, long number, nint a0 = 0, nint a1 = 0, nint a2 = 0, nint a3 = 0, nint a4 = 0) =>
        _steps.Add(id, mode, number, a0, a1, a2, a3, a4);

    /// <summary>
    /// Appends a step after which a clone of the child goes on, as another child of its parent and in the PID namespace
    /// that was joined before. The child itself stays, and tells only its parent the clone's id (<see cref="ChildCode.ForkedPidAddress"/>).
    /// </summary>
    public void AddFork(uint id)
    {
        // Of two children of one parent none can have a signal of its own for its end (clone3: CLONE_PARENT).
        Libc.clone_args args = new() { flags = Libc.CLONE_PARENT | Libc.CLONE_PARENT_SETTID, parent_tid = (ulong)ChildCode.ForkedPidAddress };
        Add(id, StepMode.Fork, Libc.SYS_clone3, Record([args]), sizeof(Libc.clone_args));
    }

    /// <summary>A list of steps that are carried out in the caller's memory, before the child execs.</summary>
    /// <param name="capacity">Most steps.</param>
    /// <exception cref="LinuxException">E2BIG: the program's memory is full.</exception>
    public StepList LocalSteps(int capacity) => new(Allocate(StepList.SizeOf(capacity)), capacity, reportFd: -1);

    /// <summary>Closes <see cref="File"/>: the child has it.</summary>
    public void CloseFile() => _file?.Dispose();

    /// <summary>The child's address of something that the program's memory holds.</summary>
    public nint Address(void* local) => (nint)local + _shift;

    /// <summary>Appends a step that reports a milestone.</summary>
    public void AddReport(uint id, int fd) => Add(id, StepMode.Positive, Libc.SYS_write, fd, Record([(int)id, 0]), 8);

    /// <summary>Appends a step that waits for one byte.</summary>
    public void AddWait(int fd) => Add(0, StepMode.Positive, Libc.SYS_read, fd, Address(Allocate(8)), 1);

    /// <summary>A copy of plain records; its address in the child.</summary>
    /// <exception cref="LinuxException">E2BIG: the program's memory is full.</exception>
    public nint Record<T>(ReadOnlySpan<T> values)
        where T : unmanaged
    {
        byte* p = Allocate((nuint)values.Length * (nuint)sizeof(T));
        values.CopyTo(new Span<T>(p, values.Length));
        return Address(p);
    }

    /// <summary>A NUL-terminated copy of a string; its address in the child.</summary>
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
        return Address(p);
    }

    /// <summary>A NULL-terminated array of pointers to copies of strings; its address in the child.</summary>
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
        return Address(array);
    }

    /// <summary>Zeroed memory, eight-byte aligned unless told otherwise; its address in the caller.</summary>
    /// <exception cref="LinuxException">E2BIG: the program's memory is full.</exception>
    public byte* Allocate(nuint size, bool align = true)
    {
        nuint at = align ? (_used + 7) & ~(nuint)7 : _used;
        if (size > _capacity || at > _capacity - size)
        {
            throw new LinuxException(Errno.E2BIG, "the process's arguments and environment");
        }

        _used = at + size;
        return _base + at;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _file?.Dispose();
        if (_base != null)
        {
            _ = Libc.munmap(_base, _capacity);
            _base = null;
        }
    }
}

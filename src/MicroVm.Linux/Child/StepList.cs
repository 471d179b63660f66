namespace MicroVm.Linux.Child;

/// <summary>An array of steps, as child.S carries it out, in memory that outlives it.</summary>
public sealed unsafe class StepList
{
    private const int HeaderSize = 16;
    private readonly uint* _header;
    private readonly int _capacity;
    private int _count;

    /// <summary>An empty list.</summary>
    /// <param name="memory">Zeroed memory of <see cref="SizeOf"/> bytes, eight-byte aligned.</param>
    /// <param name="capacity">Most steps.</param>
    /// <param name="reportFd">The child's descriptor for reports; -1: failures are left in the memory only.</param>
    public StepList(byte* memory, int capacity, int reportFd)
    {
        _header = (uint*)memory;
        _header[2] = (uint)reportFd;
        _capacity = capacity;
    }

    /// <summary>The first step, for <see cref="ChildCode.Spawn"/>.</summary>
    public ChildStep* First => (ChildStep*)((byte*)_header + HeaderSize);

    /// <summary>The step that failed and its errno, as the child left them in its memory; OK when none did.</summary>
    public (uint Id, Errno Errno) Failure => (Volatile.Read(ref _header[0]), (Errno)(Volatile.Read(ref _header[1]) & 0xfff));

    /// <summary>Bytes that a list takes.</summary>
    public static nuint SizeOf(int capacity) => HeaderSize + ((nuint)capacity * (nuint)sizeof(ChildStep));

    /// <summary>Appends a system call.</summary>
    public ChildStep* Add(uint id, StepMode mode, long number, nint a0 = 0, nint a1 = 0, nint a2 = 0, nint a3 = 0, nint a4 = 0)
    {
        if (_count == _capacity)
        {
            throw new InvalidOperationException($"a child has more than {_capacity} steps");
        }

        ChildStep* step = First + _count++;
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
}

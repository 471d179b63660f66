using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>A program to start: posix_spawn(3) with nothing inherited but what is listed.</summary>
public sealed unsafe class Spawn
{
    private readonly List<(SafeFd Source, int Target)> _descriptors = [];

    /// <summary>Absolute path of the program.</summary>
    public required string File { get; init; }

    /// <summary>Arguments, the program's own name first.</summary>
    public required IReadOnlyList<string> Arguments { get; init; }

    /// <summary>Environment, "NAME=value".</summary>
    public IReadOnlyList<string> Environment { get; init; } = [];

    /// <summary>Start in a session of its own, away from the terminal's signals.</summary>
    public bool NewSession { get; init; }

    /// <summary>Folder to start in; the caller's when null.</summary>
    public string? WorkingDirectory { get; init; }

    /// <summary>
    /// Gives the program a descriptor, borrowed until <see cref="Start"/>. Numbers 0 to 2 must all be given; the others
    /// follow in order, and the result is the number in the program.
    /// </summary>
    public int Add(SafeFd descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        _descriptors.Add((descriptor, _descriptors.Count));
        return _descriptors.Count - 1;
    }

    /// <summary>
    /// Starts the program, with every signal unblocked and at its default. The calling thread counts as its parent for
    /// PR_SET_PDEATHSIG.
    /// </summary>
    /// <exception cref="LinuxException">It cannot be executed, or no process or descriptor is free.</exception>
    public SpawnedProcess Start()
    {
        Libc.posix_spawn_file_actions_t actions;
        Libc.posix_spawnattr_t attributes;
        Result(Libc.posix_spawn_file_actions_init(&actions));
        Result(Libc.posix_spawnattr_init(&attributes));
        List<nint> memory = [];
        List<SafeFd> high = [];
        try
        {
            // Sources are moved above every target first, so that no dup2 overwrites one still to come.
            int count = _descriptors.Count;
            foreach ((SafeFd source, int target) in _descriptors)
            {
                SafeFd copy = SafeFd.From(Libc.fcntl(source.Value, Libc.F_DUPFD_CLOEXEC, count), "fcntl(F_DUPFD_CLOEXEC)");
                high.Add(copy);
                Result(Libc.posix_spawn_file_actions_adddup2(&actions, copy.Value, target));
            }

            Result(Libc.posix_spawn_file_actions_addclosefrom_np(&actions, count));
            if (WorkingDirectory is not null)
            {
                Result(Libc.posix_spawn_file_actions_addchdir_np(&actions, Text(WorkingDirectory, memory)));
            }

            Libc.sigset_t none = default, all;
            new Span<byte>(&all, sizeof(Libc.sigset_t)).Fill(0xff);
            Result(Libc.posix_spawnattr_setsigmask(&attributes, &none));
            Result(Libc.posix_spawnattr_setsigdefault(&attributes, &all));
            int flags = Libc.POSIX_SPAWN_SETSIGDEF | Libc.POSIX_SPAWN_SETSIGMASK | (NewSession ? Libc.POSIX_SPAWN_SETSID : 0);
            Result(Libc.posix_spawnattr_setflags(&attributes, (short)flags));

            int pid;
            Result(Libc.posix_spawn(&pid, Text(File, memory), &actions, &attributes, Vector(Arguments, memory), Vector(Environment, memory)));
            return new SpawnedProcess(pid);
        }
        finally
        {
            _ = Libc.posix_spawn_file_actions_destroy(&actions);
            _ = Libc.posix_spawnattr_destroy(&attributes);
            high.ForEach(fd => fd.Dispose());
            memory.ForEach(Marshal.FreeCoTaskMem);
        }
    }

    // These calls return the error number instead of setting errno.
    private void Result(int errno)
    {
        if (errno != 0)
        {
            throw new LinuxException((Errno)errno, "start", File);
        }
    }

    private static byte* Text(string text, List<nint> memory)
    {
        nint p = Marshal.StringToCoTaskMemUTF8(text);
        memory.Add(p);
        return (byte*)p;
    }

    private static byte** Vector(IReadOnlyList<string> texts, List<nint> memory)
    {
        byte** vector = (byte**)Marshal.AllocCoTaskMem((texts.Count + 1) * sizeof(byte*));
        memory.Add((nint)vector);
        for (int i = 0; i < texts.Count; i++)
        {
            vector[i] = Text(texts[i], memory);
        }

        vector[texts.Count] = null;
        return vector;
    }
}

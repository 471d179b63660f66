using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Memory;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Machine;

/// <summary>Opens the files of a snapshot that a machine is to be restored from.</summary>
internal static unsafe class SnapshotOpener
{
    private const int CopyStack = 128 << 10;

    /// <summary>Reads and checks the state file.</summary>
    /// <exception cref="SnapshotException">It is no snapshot, is damaged, or is of another version.</exception>
    /// <exception cref="ConfigException">It cannot be opened.</exception>
    public static SnapshotFile OpenState(RestoreConfig config)
    {
        using SafeFd file = FileOpener.Open(config.State, Libc.O_RDONLY, "restore.state");
        return SnapshotFile.Parse(Read(file));
    }

    /// <summary>Maps the memory file as the guest's RAM: its pages are the page cache's until the guest writes to them.</summary>
    /// <exception cref="SnapshotException">It is not the memory of this snapshot, or the configuration is of another size.</exception>
    /// <exception cref="ConfigException">It cannot be opened.</exception>
    /// <exception cref="LinuxException">It cannot be mapped.</exception>
    public static GuestMemory MapMemory(RestoreConfig config, SnapshotFile snapshot, int memoryMiB)
    {
        SafeFd file = FileOpener.Open(config.Memory, Libc.O_RDONLY, "restore.memory");
        try
        {
            if (snapshot.Header.MemoryMiB != memoryMiB)
            {
                throw new SnapshotException($"the snapshot does not fit: it has {snapshot.Header.MemoryMiB} MiB, the configuration {memoryMiB}");
            }

            SnapshotMemory.CheckLength(file, snapshot.Header);
            return GuestMemory.FromFile(file, (ulong)memoryMiB << 20, copyOnWrite: true);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Begins to copy the pages that every start writes, by batches and on a thread of its own: the guest would have KVM copy them one by one.
    /// </summary>
    /// <param name="config">The files.</param>
    /// <param name="memory">The RAM, which must stay until the thread has ended.</param>
    /// <param name="trace">Records the step.</param>
    /// <returns>The thread, which must have ended before the system call filter is turned on; null where the pages are not known.</returns>
    /// <exception cref="SnapshotException">The file of pages is damaged.</exception>
    /// <exception cref="ConfigException">It cannot be opened.</exception>
    public static Thread? BeginCopies(RestoreConfig config, GuestMemory memory, StepRecorder trace)
    {
        if (config.Pages is not { } reference)
        {
            return null;
        }

        using SafeFd file = FileOpener.Open(reference, Libc.O_RDONLY, "restore.pages");
        PageSet pages = PageSet.Parse(Read(file));
        Thread thread = new(
            () =>
            {
                using StepScope step = trace.Begin("copy the pages that every start writes");
                foreach ((uint first, uint count) in pages.Ranges)
                {
                    memory.CopyPages(first, count);
                }
            }, CopyStack)
        { IsBackground = true, Name = "pages" };
        thread.Start();
        return thread;
    }

    private static byte[] Read(SafeFd file)
    {
        byte[] buffer = new byte[64 << 10];
        int count = 0;
        while (true)
        {
            if (count == buffer.Length)
            {
                if (count > SnapshotFormat.MaxLength)
                {
                    throw new SnapshotException($"the state file has more than {SnapshotFormat.MaxLength} bytes");
                }

                Array.Resize(ref buffer, buffer.Length * 2);
            }

            nint n;
            fixed (byte* p = buffer)
            {
                n = Libc.pread(file.Value, p + count, (nuint)(buffer.Length - count), count);
            }

            if (n == 0)
            {
                return buffer[..count];
            }

            if (n < 0 && !Check.Retry(n))
            {
                Check.Throw("pread", "the state file");
            }

            count += (int)Math.Max(n, 0);
        }
    }
}

using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Machine;

/// <summary>Opens the files of a snapshot that a machine is to be restored from.</summary>
internal static unsafe class SnapshotOpener
{
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

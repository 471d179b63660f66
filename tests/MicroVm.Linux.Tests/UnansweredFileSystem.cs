using System.Buffers.Binary;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>
/// A mounted file system whose server takes requests and answers none: whoever asks it for a name waits in the kernel, out of reach of
/// SIGKILL, until the server is gone (linux/fuse.h; fs/fuse/dev.c, "Either request is already in userspace").
/// </summary>
internal sealed unsafe class UnansweredFileSystem : IDisposable
{
    private const uint FUSE_LOOKUP = 1, FUSE_INIT = 26, FUSE_KERNEL_VERSION = 7, FUSE_KERNEL_MINOR_VERSION = 31;
    private const int FUSE_MIN_READ_BUFFER = 8192, InHeader = 40, OutHeader = 16, InitOut = 64;
    private readonly SafeFd _server;

    private UnansweredFileSystem(string folder, SafeFd server) => (Folder, _server) = (folder, server);

    /// <summary>Where it is mounted.</summary>
    public string Folder { get; }

    /// <summary>Mounts one; the test is skipped where that is not possible.</summary>
    public static UnansweredFileSystem Mount()
    {
        int fd = Libc.open("/dev/fuse", Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        Skip.If(fd < 0, "/dev/fuse cannot be opened: a process that SIGKILL does not reach was NOT tried");
        SafeFd server = SafeFd.From(fd, "open", "/dev/fuse");
        string folder = Directory.CreateTempSubdirectory("microvm-unanswered-").FullName;
        if (Libc.mount("unanswered", folder, "fuse", (nuint)(Libc.MS_NOSUID | Libc.MS_NODEV), $"fd={fd},rootmode=40000,user_id=0,group_id=0") != 0)
        {
            Errno error = Check.LastErrno;
            server.Dispose();
            Directory.Delete(folder);
            Skip.If(error is Errno.EPERM, "this process may not mount: a process that SIGKILL does not reach was NOT tried");
            throw new LinuxException(error, "mount", folder);
        }

        UnansweredFileSystem made = new(folder, server);
        made.Answer(made.Take(FUSE_INIT));
        return made;
    }

    /// <summary>Takes the request for a name, from which on the process that asks is out of reach.</summary>
    public void TakeLookup() => Take(FUSE_LOOKUP);

    /// <summary>Ends the server; every request ends with an error.</summary>
    public void End() => _server.Dispose();

    public void Dispose()
    {
        End();
        _ = Libc.umount2(Folder, Libc.MNT_DETACH);
        Directory.Delete(Folder);
    }

    // The number of the next request, which is of the kind that is expected.
    private ulong Take(uint operation)
    {
        byte[] request = new byte[FUSE_MIN_READ_BUFFER];
        fixed (byte* p = request)
        {
            Libc.pollfd pfd = new() { fd = _server.Value, events = Libc.POLLIN };
            Assert.Equal(1, Libc.poll(&pfd, 1, 30_000));
            Assert.True(Libc.read(_server.Value, p, FUSE_MIN_READ_BUFFER) >= InHeader);
        }

        Assert.Equal(operation, BinaryPrimitives.ReadUInt32LittleEndian(request.AsSpan(4)));
        return BinaryPrimitives.ReadUInt64LittleEndian(request.AsSpan(8));
    }

    private void Answer(ulong unique)
    {
        byte[] answer = new byte[OutHeader + InitOut];
        BinaryPrimitives.WriteInt32LittleEndian(answer, answer.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(answer.AsSpan(8), unique);
        BinaryPrimitives.WriteUInt32LittleEndian(answer.AsSpan(OutHeader), FUSE_KERNEL_VERSION);
        BinaryPrimitives.WriteUInt32LittleEndian(answer.AsSpan(OutHeader + 4), FUSE_KERNEL_MINOR_VERSION);
        HostFile.WriteAll(_server, answer, "/dev/fuse");
    }
}

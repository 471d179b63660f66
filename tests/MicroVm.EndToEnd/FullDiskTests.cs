using MicroVm.EndToEnd.Support;
using MicroVm.Linux;

namespace MicroVm.EndToEnd;

/// <summary>A full file system under `--root`: creation fails whole, and what was created before can still be ended.</summary>
public sealed class FullDiskTests
{
    private const int Page = 4096;

    [SkippableFact]
    public void CreationFailsWholeOrNotAtAll()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done");
        string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
        bundle.Linux["cgroupsPath"] = cgroup;
        using DetachedContainer c = new(bundle);
        using SmallFileSystem disk = new(c.Root, "64k");
        int created = 0;
        for (int free = 0; free <= 12; free++)
        {
            disk.Fill(free);
            CommandResult create = c.Create();
            if (create.ExitCode != 0)
            {
                Assert.Equal(1, create.ExitCode);
                Assert.False(File.Exists(c["pid"]));
                if (Installation.IsMicroVm)
                {
                    Assert.Contains("no space left on device", create.StandardError, StringComparison.OrdinalIgnoreCase);
                    Assert.Single(create.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries));
                }
            }
            else if (Installation.IsMicroVm)
            {
                // Whatever was free then, nothing is from now on.
                created++;
                disk.Fill(0);
                c.Call("start").EnsureSuccess();
                c.WaitForOutput("ready");
                Assert.Equal("running", c.Status);
                c.Call("pause").EnsureSuccess();
                Assert.Equal("paused", c.Status);
                c.Call("resume").EnsureSuccess();
                Assert.Equal(0, c.Raw("exec", c.Id, "true").ExitCode);
                c.Call("kill").EnsureSuccess();
                Assert.Equal(3, DetachedContainer.Reap(c.Pid));
                Assert.Equal("stopped", c.Status);
                c.Call("delete").EnsureSuccess();
                File.Delete(c["pid"]);
            }
            else
            {
                c.Call("delete", "--force").EnsureSuccess();
                File.Delete(c["pid"]);
            }

            Assert.Equal([SmallFileSystem.Filler], Directory.EnumerateFileSystemEntries(c.Root).Select(Path.GetFileName));
            Assert.Empty(DetachedContainer.CgroupFolders(cgroup));
        }

        Assert.True(created > 0 || !Installation.IsMicroVm);
    }

    /// <summary>A tmpfs of a few pages.</summary>
    private sealed class SmallFileSystem : IDisposable
    {
        public const string Filler = "filler";
        private readonly string _path;

        public SmallFileSystem(string path, string size)
        {
            _path = path;
            Directory.CreateDirectory(path);
            Shell.Run("mount", "-t", "tmpfs", "-o", $"size={size},mode=700", "tmpfs", path).EnsureSuccess();
        }

        /// <summary>Leaves <paramref name="pages"/> pages free.</summary>
        public void Fill(int pages)
        {
            string file = Path.Combine(_path, Filler);
            File.Delete(file);
            using SafeFd fd = SafeFd.From(Linux.Native.Libc.open(file, Linux.Native.Libc.O_WRONLY | Linux.Native.Libc.O_CREAT, 0b110_000_000), "open", file);
            LinuxException full = Assert.Throws<LinuxException>(() => HostFile.WriteAll(fd, new byte[1 << 20], file));
            Assert.Equal(Errno.ENOSPC, full.Errno);
            long size = new FileInfo(file).Length;
            using FileStream stream = new(file, FileMode.Open);
            stream.SetLength(Math.Max(0, ((size + Page - 1) / Page) - pages) * Page);
        }

        public void Dispose() => Shell.Run("umount", "-l", _path);
    }
}

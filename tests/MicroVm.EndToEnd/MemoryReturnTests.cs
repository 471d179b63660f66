using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What a container frees goes back to the host, and can be had again.</summary>
public sealed class MemoryReturnTests
{
    private const int MiB = 1 << 20;
    private const int FileMiB = 128;

    // It takes some three seconds; a busy machine may need many times that.
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(120);

    [SkippableFact]
    public void AFreedFileIsMemoryOfTheHostAgain()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create($"""
            read go
            for i in 1 2; do
                dd if=/dev/zero of=/scratch/file bs=1M count={FileMiB} 2>/dev/null && md5sum < /scratch/file && echo full $i
                read go
                rm /scratch/file && echo removed $i
                read go
            done
            echo end
            """);
        bundle.AddMount("/scratch", "tmpfs", "tmpfs", $"size={FileMiB + 8}m");
        bundle.Save();
        string zeroes = Shell.RunWith("", "/bin/sh", "-c", $"head -c {FileMiB * MiB} /dev/zero | md5sum").EnsureSuccess().StandardOutput.Trim();
        using Container c = Container.Start(bundle, "--vm-memory", "512");
        Next(c);
        for (int i = 1; i <= 2; i++)
        {
            c.WaitForOutput($"full {i}");
            int vmm = Assert.Single(c.VmmPids());
            long full = SharedMemory(vmm);
            Assert.InRange(full, FileMiB * (long)MiB, long.MaxValue);
            Next(c);
            c.WaitForOutput($"removed {i}");
            DateTime end = DateTime.UtcNow + Deadline;
            long wanted = full - (FileMiB * (long)MiB * 9 / 10);
            while (SharedMemory(vmm) > wanted)
            {
                Assert.True(DateTime.UtcNow < end, $"of {full >> 20} MiB the VMM still has {SharedMemory(vmm) >> 20} MiB {Deadline.TotalSeconds} s after {FileMiB} MiB were freed");
                Thread.Sleep(100);
            }

            Next(c);
        }

        CommandResult result = c.Wait();
        Assert.Equal((0, 2), (result.ExitCode, result.StandardOutput.Split(zeroes).Length - 1));
        Assert.EndsWith("end\n", result.StandardOutput, StringComparison.Ordinal);
    }

    private static void Next(Container c)
    {
        c.Input.Write("go\n"u8);
        c.Input.Flush();
    }

    /// <summary>Guest RAM of a VMM that the host has pages for, in bytes.</summary>
    private static long SharedMemory(int pid)
    {
        string line = File.ReadLines($"/proc/{pid}/status").First(l => l.StartsWith("RssShmem:", StringComparison.Ordinal));
        return long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10;
    }
}

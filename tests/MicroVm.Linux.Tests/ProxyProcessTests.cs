using System.Diagnostics;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;
using Xunit;

namespace MicroVm.Linux.Tests;

/// <summary>The process that stands for another one: it tells its signals, and ends as it is told.</summary>
public sealed unsafe class ProxyProcessTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    [SkippableFact]
    public void TheBytesAreThoseOfProxyS()
    {
        string folder = Directory.CreateTempSubdirectory().FullName;
        try
        {
            string binary = Path.Combine(folder, "proxy.bin");
            string script = $"gcc -c '{Source()}' -o '{folder}/proxy.o' && objcopy -O binary -j .text '{folder}/proxy.o' '{binary}'";
            using Process sh = Process.Start("/bin/sh", ["-c", $"command -v gcc objcopy >/dev/null || exit 77; {script}"]);
            sh.WaitForExit();
            Skip.If(sh.ExitCode == 77, "gcc or objcopy is not installed: the proxy's machine code was NOT compared with its source");
            Assert.Equal(0, sh.ExitCode);
            Assert.Equal(File.ReadAllBytes(binary), ProxyCode.Bytes.ToArray());
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(0, 255)]
    [InlineData(1, 1)]
    [InlineData(1, 15)]
    [InlineData(1, 13)]
    [InlineData(1, 11)]
    [InlineData(1, 64)]
    public void ItEndsAsItIsTold(byte kind, byte value)
    {
        (SafeFd ours, SpawnedProcess process) = Started();
        using (ours)
        using (process)
        {
            HostFile.WriteAll(ours, [kind, value], "proxy");
            Assert.Equal(kind == 0 ? new ExitStatus(value, 0) : new ExitStatus(0, value), process.Wait(Patience));
        }
    }

    [Fact]
    public void ASignalThatEndsNobodyIsAStatus()
    {
        (SafeFd ours, SpawnedProcess process) = Started();
        using (ours)
        using (process)
        {
            HostFile.WriteAll(ours, [1, 17], "proxy");
            Assert.Equal(new ExitStatus(128 + 17, 0), process.Wait(Patience));
        }
    }

    [Fact]
    public void SignalsAreToldInNumbersAndTheEndOfTheSocketIsItsOwn()
    {
        (SafeFd ours, SpawnedProcess process) = Started();
        using (process)
        {
            foreach (int signal in (int[])[15, 1, 10, 28, 13, 11, 34, 64])
            {
                process.Signal(signal);
                int told = 0;
                Assert.Equal(sizeof(int), Libc.read(ours.Value, (byte*)&told, sizeof(int)));
                Assert.Equal(signal, told);
            }

            Assert.Null(process.TryWait());
            ours.Dispose();
            Assert.Equal(new ExitStatus(0, 9), process.Wait(Patience));
        }
    }

    [Fact]
    public void ItHasTheNameOfItsProgramAndNoRights()
    {
        (SafeFd ours, SpawnedProcess process) = Started();
        using (ours)
        using (process)
        {
            // A signal that comes back was taken by the program, which has its name by then.
            process.Signal(10);
            int told;
            Assert.Equal(sizeof(int), Libc.read(ours.Value, (byte*)&told, sizeof(int)));
            string[] status = File.ReadAllLines($"/proc/{process.Pid}/status");
            Assert.Contains("Name:\tsome", status);
            Assert.Contains("NoNewPrivs:\t1", status);
            Assert.Contains("CapEff:\t0000000000000000", status);
            Assert.Equal("/bin/some\0more\0", File.ReadAllText($"/proc/{process.Pid}/cmdline"));
        }
    }

    private static (SafeFd Ours, SpawnedProcess Process) Started()
    {
        (SafeFd ours, SafeFd other) = UnixSocket.Pair();
        using SafeFd its = other;
        return (ours, ProxyProcess.Start(its, ["/bin/some", "more"], ["A=b"]));
    }

    private static string Source()
    {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "MicroVm.sln")))
        {
            folder = Path.GetDirectoryName(folder)!;
        }

        return Path.Combine(folder, "src", "MicroVm.Linux", "Child", "proxy.S");
    }
}

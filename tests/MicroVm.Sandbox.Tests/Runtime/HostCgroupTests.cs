using System.Globalization;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.HostCgroups;

namespace MicroVm.Sandbox.Tests.Runtime;

/// <summary>A container's cgroup on a host that has version 2 only: plain files stand for the kernel's.</summary>
public sealed class HostCgroupTests : IDisposable
{
    private const string Path = "/pod/container";
    private readonly TempFolder _folder = new();
    private readonly HostCgroup _cgroup;

    public HostCgroupTests()
    {
        // One controller: the kernel adds each that is written, a plain file keeps the last.
        foreach (string folder in (string[])["", "pod"])
        {
            Directory.CreateDirectory(_folder[folder]);
            File.WriteAllText(_folder[System.IO.Path.Combine(folder, "cgroup.controllers")], "memory\n");
            File.WriteAllText(_folder[System.IO.Path.Combine(folder, "cgroup.subtree_control")], "");
        }

        Directory.CreateDirectory(_folder["pod/container"]);
        foreach (string file in (string[])["cgroup.procs", "memory.max", "cpu.max", "cpu.weight", "cpuset.cpus", "cpuset.mems", "io.max", "io.bfq.weight"])
        {
            File.WriteAllText(_folder["pod/container/" + file], "");
        }

        string mounts = $"28 24 0:25 / {_folder.Path} rw - cgroup2 cgroup2 rw,nsdelegate\n";
        _cgroup = HostCgroup.In(CgroupHierarchy.Parse(mounts, "0::/init.scope\n"), h => CgroupPath.Folder(h, Path, "id", systemd: false));
    }

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void ControllersArePassedDownToIt()
    {
        _cgroup.Create();
        Assert.Equal("+memory", File.ReadAllText(_folder["cgroup.subtree_control"]));
        Assert.Equal("+memory", File.ReadAllText(_folder["pod/cgroup.subtree_control"]));
        Assert.False(File.Exists(_folder["pod/container/cgroup.subtree_control"]));
    }

    [Fact]
    public void VmmAndProxyArePutThere()
    {
        using MicroVm.Linux.SafeFd? forVmm = _cgroup.JoinThread();
        Assert.Equal(_folder["pod/container"], File.ResolveLinkTarget($"/proc/self/fd/{forVmm!.Value}", returnFinalTarget: false)!.FullName);
        _cgroup.Join();
        Assert.Equal(Environment.ProcessId.ToString(CultureInfo.InvariantCulture), Read("cgroup.procs"));
    }

    [Fact]
    public void AVmOfSeveralContainersHasTheirSharesTogether()
    {
        // Kubernetes gives a pod's first container 2; what says nothing has the kernel's 1024.
        HostLimits.SetShares(_cgroup, [2, 512, null]);
        Assert.Equal(Oci.Cgroups.CgroupSettings.CpuWeight(1538).ToString(CultureInfo.InvariantCulture), Read("cpu.weight"));
        HostLimits.SetShares(_cgroup, [ulong.MaxValue, ulong.MaxValue]);
        Assert.Equal(Oci.Cgroups.CgroupSettings.CpuWeight(1 << 18).ToString(CultureInfo.InvariantCulture), Read("cpu.weight"));
    }

    [Fact]
    public void LimitsAreWrittenInVersion2sWords()
    {
        Resources resources = new()
        {
            Memory = new() { Limit = 64 << 20 },
            Cpu = new() { Shares = 1024, Quota = 50_000, Period = 100_000, Cpus = "0-1", Mems = "0" },
            BlockIO = new() { Weight = 100, ThrottleReadBpsDevice = [new() { Major = 8, Minor = 0, Rate = 4096 }] },
        };
        HostLimits.ApplyAtCreation(_cgroup, resources, vmMemoryMiB: 128, w => Assert.Fail(w));
        Assert.Equal(((128L + HostLimits.OverheadMiB) << 20).ToString(CultureInfo.InvariantCulture), Read("memory.max"));
        Assert.Equal(("0-1", "0", "100", "8:0 rbps=4096"), (Read("cpuset.cpus"), Read("cpuset.mems"), Read("io.bfq.weight"), Read("io.max")));
        Assert.NotEqual("", Read("cpu.weight"));

        // The boot is not the container's work.
        Assert.Equal("", Read("cpu.max"));
        HostLimits.ApplyAtStart(_cgroup, resources);
        Assert.Equal("50000 100000", Read("cpu.max"));
    }

    [Fact]
    public void ControllersThatTheHostLacksAreLeftOut()
    {
        File.Delete(_folder["pod/container/memory.max"]);
        Assert.False(_cgroup.TryWrite("memory", "memory.limit_in_bytes", "1", "memory.max", "1"));
        Assert.False(File.Exists(_folder["pod/container/memory.max"]));
    }

    [Theory]
    [InlineData("io.bfq.weight", 500, "500", "8:0 500")]
    [InlineData("io.weight", 500, "4950", "8:0 4950")]
    [InlineData("io.weight", 1000, "10000", "8:0 10000")]
    [InlineData("io.weight", 10, "1", "8:0 1")]
    [InlineData("other", 500, null, null)]
    public void WeightsOfBlockIoGoToTheFileThatTheKernelHas(string file, ushort weight, string? written, string? ofDevice)
    {
        File.Delete(_folder["pod/container/io.bfq.weight"]);
        File.WriteAllText(_folder["pod/container/" + file], "");
        List<string> warnings = [];
        BlockIoLimits.Apply(_cgroup, new() { Weight = weight }, warnings.Add);
        Assert.Equal(written ?? "", Read(file));
        BlockIoLimits.Apply(_cgroup, new() { WeightDevice = [new() { Major = 8, Minor = 0, Weight = weight }] }, warnings.Add);
        Assert.Equal(ofDevice ?? "", Read(file));
        Assert.Equal(written is null ? 2 : 0, warnings.Count(w => w.Contains("has no block I/O weights", StringComparison.Ordinal)));
        BlockIoLimits.Apply(_cgroup, new() { LeafWeight = 10 }, warnings.Add);
        Assert.Contains("linux.resources.blockIO.leafWeight 10 has no effect", warnings[^1], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("pod/container", "populated 0\nfrozen 1\n", true)]
    [InlineData("pod/container", "populated 0\nfrozen 0\n", false)]
    [InlineData("pod", "populated 0\nfrozen 1\n", true)]
    public void AFrozenCgroupIsRefused(string frozen, string events, bool refused)
    {
        if (frozen == "pod")
        {
            Directory.Delete(_folder["pod/container"], recursive: true);
        }

        File.WriteAllText(_folder[frozen + "/cgroup.events"], events);
        Assert.Equal(refused, _cgroup.IsFrozen());
        if (refused)
        {
            SandboxException e = Assert.Throws<SandboxException>(() => _cgroup.RefuseFrozen());
            Assert.Equal("container's cgroup unexpectedly frozen", e.Message);
        }
    }

    [Fact]
    public void ACgroupWithProcessesIsWarnedOf()
    {
        File.WriteAllText(_folder["pod/container/cgroup.procs"], "1\n22\n");
        List<string> warnings = [];
        _cgroup.WarnOfProcesses(warnings.Add);
        Assert.Equal(["container's cgroup is not empty: 2 process(es) found"], warnings);
    }

    private string Read(string file) => File.ReadAllText(_folder["pod/container/" + file]);
}

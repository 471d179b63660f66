using FsCheck;
using FsCheck.Fluent;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;
using MicroVm.Oci.Mounts;
using MicroVm.Oci.Processes;
using static MicroVm.Linux.Native.Libc;

namespace MicroVm.Oci.Tests;

/// <summary>Names and options to numbers: capabilities, limits, mounts, cgroup settings, sysctls, scheduling.</summary>
public sealed class ResolutionTests
{
    [Fact]
    public void CapabilitiesBecomeMasksAndUnknownOnesAWarning()
    {
        List<string> warnings = [];
        CapabilitySets sets = CapabilitySets.Resolve(
            new CapabilityNames { Bounding = ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE", "CAP_FLY"], Effective = ["cap_kill"] }, warnings);
        Assert.Equal(new CapabilitySets((1UL << 40) | 1, 0, 0, 0, 0), sets);
        Assert.Equal("ignoring unknown or unavailable capabilities: [CAP_FLY cap_kill]", Assert.Single(warnings));
        Assert.Equal(default, CapabilitySets.Resolve(null, warnings));
    }

    [Fact]
    public void OnlyPermittedAndInheritableCapabilitiesCanBeAmbient()
    {
        CapabilityNames names = new() { Ambient = ["CAP_KILL", "CAP_CHOWN", "CAP_MKNOD"], Permitted = ["CAP_KILL", "CAP_CHOWN"], Inheritable = ["CAP_KILL", "CAP_MKNOD"] };
        Assert.Equal(1UL << 5, CapabilitySets.Resolve(names, []).Ambient);
    }

    [Fact]
    public void ResourceLimitsAreResolvedAndCheckedByName()
    {
        Assert.Equal(
            [new ResourceLimit(7, 1024, ulong.MaxValue)],
            ResourceLimit.Resolve([new Rlimit { Type = "RLIMIT_NOFILE", Soft = 1024, Hard = ulong.MaxValue }]));
        Assert.Contains("RLIMIT_X", Refused(() => ResourceLimit.Resolve([new Rlimit { Type = "RLIMIT_X" }])), StringComparison.Ordinal);
        Assert.Contains("twice", Refused(() => ResourceLimit.Resolve([new Rlimit { Type = "RLIMIT_AS" }, new Rlimit { Type = "RLIMIT_AS" }])), StringComparison.Ordinal);
        Assert.Contains("soft limit 2", Refused(() => ResourceLimit.Resolve([new Rlimit { Type = "RLIMIT_AS", Soft = 2, Hard = 1 }])), StringComparison.Ordinal);
    }

    [Fact]
    public void MountWordsBecomeFlagsInOrder()
    {
        MountOptions o = MountOptions.Resolve(["nosuid", "ro", "rw", "noexec", "size=64k", "mode=755", "rshared", "private", "exec", "strictatime"], "m");
        Assert.Equal(MS_NOSUID | MS_STRICTATIME, o.Flags);
        Assert.Equal(MS_RDONLY | MS_NOEXEC, o.ClearedFlags);
        Assert.Equal("size=64k,mode=755", o.Data);
        Assert.Equal([MS_SHARED | MS_REC, MS_PRIVATE], o.Propagation);
        Assert.False(o.TmpCopyUp);
        Assert.True(MountOptions.Resolve(["tmpcopyup"], "m").TmpCopyUp);
    }

    [Fact]
    public void RecursiveWordsBecomeAttributes()
    {
        MountOptions o = MountOptions.Resolve(["rro", "rnosuid", "rdev", "rnoatime"], "m");
        Assert.Equal(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME, o.RecursiveSet);
        Assert.Equal(MOUNT_ATTR_NODEV | MOUNT_ATTR__ATIME, o.RecursiveClear);
        Assert.Equal(0UL, o.Flags);
        Assert.Equal((0UL, MOUNT_ATTR_RDONLY), (MountOptions.Resolve(["rro", "rrw"], "m").RecursiveSet, MountOptions.Resolve(["rro", "rrw"], "m").RecursiveClear));
    }

    [Fact]
    public void EveryMountWordIsUnderstoodAndNoneIsData() =>
        Prop.ForAll(Gen.ListOf(Gen.Elements(MountOptions.KnownWords.ToArray())).ToArbitrary(), words =>
        {
            MountOptions o = MountOptions.Resolve([.. words], "m");
            Assert.Equal("", o.Data);
            Assert.Equal(0UL, o.Flags & o.ClearedFlags);
            return true;
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void IdMappedMountsAreRefusedByName()
    {
        Assert.Contains("idmap", Refused(() => MountOptions.Resolve(["idmap"], "mounts[3]")), StringComparison.Ordinal);
        Assert.Equal(MS_SLAVE | MS_REC, MountOptions.RootfsPropagation("rslave"));
        Assert.Equal(0UL, MountOptions.RootfsPropagation(""));
        Assert.Contains("sideways", Refused(() => MountOptions.RootfsPropagation("sideways")), StringComparison.Ordinal);
    }

    [Fact]
    public void ResourcesBecomeCgroupSettingsInOrder()
    {
        List<string> warnings = [];
        List<CgroupSetting> settings = CgroupSettings.FromResources(
            new Resources
            {
                Pids = new() { Limit = 64 },
                Memory = new() { Limit = 48 << 20, Reservation = 1 << 20, Swap = 96 << 20 },
                Cpu = new() { Shares = 1024, Quota = 90000, Period = 100000, Burst = 5 },
                HugepageLimits = [new() { PageSize = "2MB", Limit = 1UL << 63 }],
                Unified = new() { ["memory.high"] = "1000", ["cgroup.max.depth"] = "3\n4", ["memory.swap.max"] = "5" },
            },
            warnings);
        Assert.Equal(
            [
                new("pids.max", "64"), new("memory.max", "50331648"), new("memory.low", "1048576"), new("cpu.weight", "100"),
                new("cpu.max", "90000 100000"), new("cpu.max.burst", "5"), new("hugetlb.2MB.max", "9223372036854775808", true),
                new("hugetlb.2MB.rsvd.max", "9223372036854775808", true), new("cgroup.max.depth", "3"), new("cgroup.max.depth", "4"),
                new("memory.high", "1000"), new("memory.swap.max", "5", true),
            ],
            settings);
        Assert.Empty(warnings);
    }

    [Theory]
    [InlineData(null, null, null)]
    [InlineData(0L, null, null)]
    [InlineData(-1L, "max", "max 100000")]
    [InlineData(5L, "5", "5 100000")]
    public void UnlimitedAndUnsetAreTold(long? limit, string? pids, string? cpu)
    {
        List<CgroupSetting> settings = CgroupSettings.FromResources(new Resources { Pids = new() { Limit = limit }, Cpu = new() { Quota = limit } }, []);
        Assert.Equal(pids, settings.Where(s => s.File == "pids.max").Select(s => s.Value).SingleOrDefault());
        Assert.Equal(cpu, settings.Where(s => s.File == "cpu.max").Select(s => s.Value).SingleOrDefault());
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 1)]
    [InlineData(2, 1)]
    [InlineData(1024, 100)]
    [InlineData(262144, 10000)]
    [InlineData(999999, 10000)]
    public void SharesBecomeWeights(ulong shares, ulong weight) => Assert.Equal(weight, CgroupSettings.CpuWeight(shares));

    [Fact]
    public void WeightsStayInRangeAndGrow() =>
        Prop.ForAll(Gen.Choose(2, 262143).ToArbitrary(), shares =>
            CgroupSettings.CpuWeight((ulong)shares) is >= 1 and <= 10000
            && CgroupSettings.CpuWeight((ulong)shares) <= CgroupSettings.CpuWeight((ulong)shares + 1)).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData(100L, 150L, 50L)]
    [InlineData(100L, 100L, 0L)]
    [InlineData(100L, -1L, -1L)]
    [InlineData(-1L, null, -1L)]
    [InlineData(100L, null, null)]
    public void SwapIsTheTotalLessTheMemory(long? memory, long? total, long? swap) => Assert.Equal(swap, CgroupSettings.SwapLimit(memory, total));

    [Fact]
    public void ContradictoryMemoryIsRefused()
    {
        Assert.Contains("without memory limit", Refused(() => CgroupSettings.SwapLimit(null, 5)), StringComparison.Ordinal);
        Assert.Contains("should be >=", Refused(() => CgroupSettings.SwapLimit(10, 5)), StringComparison.Ordinal);
        Assert.Contains("memory.limit", Refused(() => CgroupSettings.FromResources(new Resources { Memory = new() { Limit = -5 } }, [])), StringComparison.Ordinal);
        Assert.Contains("swappiness", Refused(() => CgroupSettings.FromResources(new Resources { Memory = new() { Swappiness = 101 } }, [])), StringComparison.Ordinal);
    }

    [Fact]
    public void SettingsOfCgroupV1OnlyWarnOrAreRefusedByName()
    {
        List<string> warnings = [];
        CgroupSettings.FromResources(
            new Resources { Memory = new() { Kernel = 5, Swappiness = 10, DisableOOMKiller = true }, Cpu = new() { RealtimePeriod = 5 } }, warnings);
        Assert.Empty(CgroupSettings.FromResources(
            new Resources { BlockIO = new() { Weight = 10, ThrottleReadBpsDevice = [new() { Major = 8, Rate = 1 }] }, Cpu = new() { Mems = "0" } }, warnings));
        Assert.Equal(5, warnings.Count);
        Assert.Contains("rdma", Refused(() => CgroupSettings.FromResources(new Resources { Rdma = new() { ["mlx5"] = new() } }, [])), StringComparison.Ordinal);
        Assert.Contains("classID", Refused(() => CgroupSettings.FromResources(new Resources { Network = new() { ClassID = 5 } }, [])), StringComparison.Ordinal);
        Assert.Contains("a/b", Refused(() => CgroupSettings.FromResources(new Resources { Unified = new() { ["a/b"] = "" } }, [])), StringComparison.Ordinal);
        Assert.Contains("2XB", Refused(() => CgroupSettings.FromResources(new Resources { HugepageLimits = [new() { PageSize = "2XB" }] }, [])), StringComparison.Ordinal);
        Assert.Contains("weight 5", Refused(() => CgroupSettings.FromResources(new Resources { BlockIO = new() { Weight = 5 } }, [])), StringComparison.Ordinal);
    }

    [Fact]
    public void CpuListsAreParsed()
    {
        Assert.Equal([0, 1, 2, 3, 6], CpuSet.Parse("0-3, 6,2", "c"));
        Assert.Empty(CpuSet.Parse("", "c"));
        foreach (string bad in (string[])["a", "3-1", "1-", "-1", "99999", "0-99999999"])
        {
            Assert.Contains(bad, Refused(() => CpuSet.Parse(bad, "c")), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void SysctlsOfNamespacesPassAndOthersAreRefused()
    {
        static bool All(string _) => true;
        Assert.Equal(
            [new Sysctl("kernel/msgmax", "8"), new Sysctl("net/ipv4/conf/eth0.1/forwarding", "1")],
            Sysctls.Resolve(new SortedDictionary<string, string>(StringComparer.Ordinal) { ["kernel.msgmax"] = "8", ["net/ipv4/conf/eth0.1/forwarding"] = "1" }, All));
        Assert.Equal("net/ipv4/conf/eth0.1/forwarding", Sysctls.Resolve(new Dictionary<string, string> { ["net.ipv4.conf.eth0/1.forwarding"] = "1" }, All)[0].Path);
        foreach (string name in (string[])["kernel.panic", "vm.swappiness", "kernel.hostname", "net/../kernel/panic", "net..x", ""])
        {
            Assert.Contains($"\"{name}\"", Refused(() => Sysctls.Resolve(new Dictionary<string, string> { [name] = "1" }, All)), StringComparison.Ordinal);
        }

        Assert.Contains("network namespace", Refused(() => Sysctls.Resolve(new Dictionary<string, string> { ["net.x"] = "1" }, t => t != "network")), StringComparison.Ordinal);
    }

    [Fact]
    public void SchedulingIsResolved()
    {
        Assert.Equal(
            new SchedulingAttributes(1, 0, 5, 1, 0, 0, 0),
            Scheduling.Resolve(new Scheduler { Policy = "SCHED_FIFO", Priority = 5, Flags = ["SCHED_FLAG_RESET_ON_FORK"] }));
        Assert.Equal((3u << 13) | 4, Scheduling.Resolve(new IoPriority { Class = "IOPRIO_CLASS_IDLE", Priority = 4 }));
        Assert.Equal(8u, Scheduling.Resolve(new Personality { Domain = "LINUX32" }));
        Assert.Contains("SCHED_X", Refused(() => Scheduling.Resolve(new Scheduler { Policy = "SCHED_X" })), StringComparison.Ordinal);
        Assert.Contains("priority 5", Refused(() => Scheduling.Resolve(new Scheduler { Policy = "SCHED_OTHER", Priority = 5 })), StringComparison.Ordinal);
        Assert.Contains("SCHED_DEADLINE", Refused(() => Scheduling.Resolve(new Scheduler { Policy = "SCHED_RR", Runtime = 5 })), StringComparison.Ordinal);
        Assert.Contains("priority 8", Refused(() => Scheduling.Resolve(new IoPriority { Class = "IOPRIO_CLASS_BE", Priority = 8 })), StringComparison.Ordinal);
        Assert.Contains("BSD", Refused(() => Scheduling.Resolve(new Personality { Domain = "BSD" })), StringComparison.Ordinal);
    }

    private static string Refused(Action action) => Assert.Throws<SpecException>(action).Message;
}

using System.Buffers.Binary;
using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What a running VMM can reach, by what /proc tells of it: fails when that grows.</summary>
public sealed partial class JailTests
{
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SETFCAP: in the VMM's own user namespace only.
    private const string FileServerCapabilities = "00000000800000df";
    private const string NoCapabilities = "0000000000000000";
    private static readonly string[] Namespaces = ["user", "mnt", "net", "pid", "ipc", "uts"];

    [SkippableFact]
    public void AVmmReachesNothingButWhatItWasGiven()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create(
            """
            set -e
            mkdir /v/d; echo x >/v/d/f; chown 1000:1000 /v/d/f; chmod 4755 /v/d/f; ln /v/d/f /v/d/g; ln -s f /v/d/s; readlink /v/d/s
            mkfifo /v/d/p; mv /v/d/g /v/d/h; truncate -s 100000 /v/d/h; dd if=/v/d/h of=/v/d/i bs=5000 conv=fsync 2>/dev/null
            touch -d 2001-02-03 /v/d/i; rm /v/d/p; ls -l /v/d | wc -l; df /v >/dev/null; sync; rmdir /v/d 2>/dev/null || head -c 1 /v/d/f; cat /ro/f
            echo y 2>/dev/null >/ro/f || echo refused
            echo ready; sleep 1000
            """);
        GiveCapabilities(bundle);

        string writable = Directory.CreateDirectory(Path.Combine(bundle.Path, "writable")).FullName;
        string readOnly = Directory.CreateDirectory(Path.Combine(bundle.Path, "readonly")).FullName;
        File.WriteAllText(Path.Combine(readOnly, "f"), "kept\n");
        bundle.AddMount("/v", writable, "bind", "rbind");
        bundle.AddMount("/ro", readOnly, "bind", "rbind", "ro");
        using Container container = Container.Start(bundle, "--vcpus", "1");
        container.WaitForOutput("ready");
        Assert.Contains("\nrefused\n", container.OutputSoFar, StringComparison.Ordinal);
        string proc = $"/proc/{Assert.Single(container.VmmPids())}";

        foreach (string ns in Namespaces)
        {
            Assert.NotEqual(File.ResolveLinkTarget($"/proc/self/ns/{ns}", false)!.Name, File.ResolveLinkTarget($"{proc}/ns/{ns}", false)!.Name);
        }

        string mount = Assert.Single(File.ReadAllLines($"{proc}/mountinfo"));
        Assert.Contains(" / ro,nosuid,nodev,noexec", mount, StringComparison.Ordinal);
        Assert.All(Directory.GetFileSystemEntries($"{proc}/root/"), f => Assert.StartsWith("vsock", Path.GetFileName(f), StringComparison.Ordinal));
        Assert.All(File.ReadAllLines($"{proc}/net/dev").Skip(2), l => Assert.StartsWith("lo:", l.Trim(), StringComparison.Ordinal));
        CheckThreads(proc);
        Assert.Equal("1000\n0\n", Shell.Run("stat", "-c", "%u", Path.Combine(writable, "d/f"), Path.Combine(writable, "d/i")).EnsureSuccess().StandardOutput);
        CheckDescriptors(proc, [bundle.Rootfs, writable, readOnly]);

        // The process that truncated the file by another name has CAP_FSETID: the set-uid bit stays, as under runc.
        Assert.Equal((UnixFileMode)0b100_111_101_101, File.GetUnixFileMode(Path.Combine(writable, "d/f")) & (UnixFileMode)0xFFF);
    }

    [SkippableFact]
    public void AVmmHasTheIdsOfItsContainersUserNamespaceAndNoOthers()
    {
        Installation.RequireKvm();
        const int first = 100_000, count = 1000, root = 0;
        using Bundle bundle = Bundle.Create(
            """
            echo made > /v/made; cat /v/foreign 2>/dev/null || echo unreadable; chown 1:1 /v/made; chown 5000:5000 /v/made 2>/dev/null || echo unmapped
            stat -c '%u %g' /v/foreign /v/made; rm /v/shut/f 2>/dev/null || echo kept; echo ready; sleep 1000
            """);
        GiveCapabilities(bundle);
        bundle.Linux["namespaces"]!.AsArray().Add(JsonNode.Parse("""{"type":"user"}"""));
        bundle.Linux["uidMappings"] = JsonNode.Parse($$"""[{"containerID":0,"hostID":{{first}},"size":{{count}}}]""");
        bundle.Linux["gidMappings"] = JsonNode.Parse($$"""[{"containerID":0,"hostID":{{2 * first}},"size":{{count}}}]""");
        string volume = Directory.CreateDirectory(Path.Combine(bundle.Path, "volume")).FullName;
        string foreign = Path.Combine(volume, "foreign"), shut = Directory.CreateDirectory(Path.Combine(volume, "shut")).FullName;
        bundle.AddMount("/v", volume, "bind", "rbind");
        Shell.Run("chown", "-hR", $"{first}:{2 * first}", bundle.Rootfs, volume).EnsureSuccess();
        File.WriteAllText(foreign, "root's\n");
        File.SetUnixFileMode(foreign, UnixFileMode.UserRead);
        File.WriteAllText(Path.Combine(shut, "f"), "");
        Shell.Run("chown", $"{root}:{root}", foreign, shut).EnsureSuccess();
        using Container container = Container.Start(bundle, "--vcpus", "1");
        container.WaitForOutput("ready");
        Assert.Equal("unreadable\nunmapped\n65534 65534\n1 1\nkept\nready\n", container.OutputSoFar);
        Assert.Equal($"{first + 1} {(2 * first) + 1}\n", Shell.Run("stat", "-c", "%u %g", Path.Combine(volume, "made")).StandardOutput);

        string proc = $"/proc/{Assert.Single(container.VmmPids())}";
        string own = File.ReadAllLines($"{proc}/status").Single(l => l.StartsWith("Uid:", StringComparison.Ordinal)).Split('\t')[1];
        Assert.Equal([$"{first} {first} {count}", $"{own} {own} 1"], Map($"{proc}/uid_map"));
        Assert.Equal([$"{2 * first} {2 * first} {count}", $"{own} {own} 1"], Map($"{proc}/gid_map"));

        static IEnumerable<string> Map(string path) => File.ReadLines(path).Select(l => string.Join(' ', l.Split(' ', StringSplitOptions.RemoveEmptyEntries)));
    }

    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void SetIdBitsAreStrippedWhereThatIsWanted(bool strip)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create(
            """
            cp /bin/busybox /v/made; chmod 6755 /v/made; mkdir -m 2755 /v/folder; stat -c '%n %a' /v/made /v/folder; echo ready; sleep 1000
            """);
        GiveCapabilities(bundle);
        if (strip)
        {
            bundle.Config["annotations"] = new JsonObject { ["dev.microvm.strip-set-id"] = "true" };
        }

        string volume = Directory.CreateDirectory(Path.Combine(bundle.Path, "volume")).FullName;
        bundle.AddMount("/v", volume, "bind", "rbind");
        using Container container = Container.Start(bundle, "--vcpus", "1");
        container.WaitForOutput("ready");
        Assert.Equal($"/v/made {(strip ? "755" : "6755")}\n/v/folder 2755\nready\n", container.OutputSoFar);
        Assert.Equal(strip ? "755\n" : "6755\n", Shell.Run("stat", "-c", "%a", Path.Combine(volume, "made")).StandardOutput);
        string status = File.ReadAllText($"/proc/{Assert.Single(container.VmmPids())}/status");
        Assert.Contains(strip ? "CapBnd:\t00000000000000df" : $"CapBnd:\t{FileServerCapabilities}", status, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void EveryContainerHasBoundsOnTheHost()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        bundle.Linux.Remove("resources");
        using Container container = Container.Start(bundle, "--vcpus", "2", "--vm-memory", "96");
        container.WaitForOutput("ready");
        string proc = $"/proc/{Assert.Single(container.VmmPids())}";
        Dictionary<string, string> limits = File.ReadLines($"{proc}/limits").Skip(1).Select(l => l[..26].Trim()).Zip(File.ReadLines($"{proc}/limits").Skip(1).Select(l => l[26..].Split(' ')[0])).ToDictionary(p => p.First, p => p.Second);

        // The vCPUs that there may be, two queues of files, the balloon and virtio-mem, two windows for interfaces with two queue pairs each, and eight.
        int most = 16 + Math.Max(2, Math.Min(4, Environment.ProcessorCount));
        Assert.Equal(most.ToString(CultureInfo.InvariantCulture), limits["Max processes"]);
        Assert.Equal((512L << 20).ToString(CultureInfo.InvariantCulture), limits["Max data size"]);
        Assert.Equal("0", limits["Max core file size"]);
        Assert.InRange(Directory.GetDirectories($"{proc}/task").Length, 5, most);
        Assert.Equal("2048", OfCgroup(proc, "pids", "pids.max", "pids.max"));
        Assert.Equal(((96L + 1024) << 20).ToString(CultureInfo.InvariantCulture), OfCgroup(proc, "memory", "memory.limit_in_bytes", "memory.max"));
    }

    private static void GiveCapabilities(Bundle bundle)
    {
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID");
        }
    }

    /// <summary>Who learns where a VMM's code lies learns nothing of another's.</summary>
    [SkippableFact]
    public void TheAddressesOfEachVmmAreItsOwn()
    {
        Installation.RequireKvm();
        Skip.If(File.ReadAllText("/proc/sys/kernel/randomize_va_space").Trim() == "0", "this host randomises no addresses");
        string[] starts = [.. Enumerable.Range(0, 2).Select(_ => StartOfCode())];
        Assert.NotEqual(starts[0], starts[1]);

        static string StartOfCode()
        {
            using BareVm vm = BareVm.StartApart(
                _ => new() { Kernel = VmmControl.FileReference.FromPath(Installation.GuestProgram("endings.kernel")), CommandLine = "idle", MemoryMiB = 64 }, out int id);
            TakenOverThread.WaitUntilFiltered(id, "vcpu0");
            return File.ReadLines($"/proc/{id}/maps").First(l => l.EndsWith("/microvm-vmm", StringComparison.Ordinal)).Split('-')[0];
        }
    }

    /// <summary>Every executable can lie anywhere in memory, also in the guest, and needs no loader for that.</summary>
    [SkippableTheory]
    [InlineData("bin/microvm")]
    [InlineData("bin/containerd-shim-microvm-v2")]
    [InlineData("libexec/microvm/microvm-vmm")]
    [InlineData("libexec/microvm/microvm-agent")]
    public void EveryExecutableIsPositionIndependent(string name)
    {
        Installation.RequireKvm();
        const int dynamic = 3, interpreter = 3, headerSize = 56;
        byte[] elf = File.ReadAllBytes(Path.Combine(Installation.Out, name));
        Assert.Equal(dynamic, BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(16)));
        int headers = (int)BinaryPrimitives.ReadUInt64LittleEndian(elf.AsSpan(32)), count = BinaryPrimitives.ReadUInt16LittleEndian(elf.AsSpan(56));
        Assert.DoesNotContain(Enumerable.Range(0, count), i => BinaryPrimitives.ReadUInt32LittleEndian(elf.AsSpan(headers + (i * headerSize))) == interpreter);
    }

    /// <summary>What a file of a process's cgroup holds: in version 1 the controller's own, in version 2 the only one's.</summary>
    internal static string OfCgroup(string proc, string controller, string v1, string v2)
    {
        string folder = FolderOfCgroup(proc, controller);
        return File.ReadAllText($"{folder}/{(File.Exists($"{folder}/{v1}") ? v1 : v2)}").Trim();
    }

    internal static string FolderOfCgroup(string proc, string controller)
    {
        string[][] memberships = [.. File.ReadLines($"{proc}/cgroup").Select(l => l.Split(':', 3))];
        return memberships.FirstOrDefault(m => m[1].Split(',').Contains(controller))?[2] is { } path
            ? $"/sys/fs/cgroup/{controller}{path}"
            : (Directory.Exists("/sys/fs/cgroup/unified") ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup") + memberships.First(m => m[0] == "0")[2];
    }

    private static void CheckThreads(string proc)
    {
        // Each narrows itself, which nothing waits for.
        int process = int.Parse(Path.GetFileName(proc), CultureInfo.InvariantCulture);
        foreach (string vcpu in Directory.GetDirectories($"{proc}/task").Select(t => File.ReadAllText(t + "/comm").Trim()).Where(n => n.StartsWith("vcpu", StringComparison.Ordinal)))
        {
            TakenOverThread.WaitUntilFiltered(process, vcpu);
        }

        List<string> kinds = [];
        HashSet<string> users = [];
        foreach (string task in Directory.GetDirectories($"{proc}/task"))
        {
            Dictionary<string, string> status = File.ReadAllLines($"{task}/status").Select(l => l.Split(":\t", 2)).ToDictionary(l => l[0], l => l[^1].Trim());
            string name = status["Name"];
            if (IsOfTheKernel(task))
            {
                continue;
            }

            kinds.Add(name);
            users.Add(status["Uid"]);
            users.Add(status["Gid"]);
            Assert.Equal(("1", "2"), (status["NoNewPrivs"], status["Seccomp"]));
            Assert.Equal(FileServerCapabilities, status["CapBnd"]);

            // The filter of the process, and that of the thread's kind: also the device loop's, and the thread of the runtime.
            Assert.True(status["Seccomp_filters"] == "2", $"the thread {name} has {status["Seccomp_filters"]} filters");
            string expected = name.StartsWith("fs", StringComparison.Ordinal) ? FileServerCapabilities : NoCapabilities;
            Assert.True((status["CapEff"], status["CapPrm"]) == (expected, expected), $"the thread {name} has the capabilities {status["CapEff"]}, {status["CapPrm"]}");
            if (expected == NoCapabilities)
            {
                Assert.Equal((NoCapabilities, NoCapabilities), (status["CapInh"], status["CapAmb"]));
            }
        }

        // A user of its own, the same for all and whatever its real, effective, saved and file system ids.
        string[] ids = Assert.Single(users).Split('\t');
        Assert.InRange(int.Parse(Assert.Single(ids.Distinct()), CultureInfo.InvariantCulture), 0x7000_0000, int.MaxValue);
        Assert.Contains("vcpu0", kinds);
        Assert.Contains("microvm-vmm", kinds);
        Assert.Contains(kinds, k => k.StartsWith("fs", StringComparison.Ordinal));
    }

    // KVM's own worker in the process (PF_USER_WORKER of linux/sched.h): it never runs code of the process.
    private static bool IsOfTheKernel(string task)
    {
        const int flagsAfterName = 6;
        string stat = File.ReadAllText($"{task}/stat");
        return (uint.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[flagsAfterName], CultureInfo.InvariantCulture) & 0x4000) != 0;
    }

    private static void CheckDescriptors(string proc, string[] exported)
    {
        foreach (string fd in Directory.GetFileSystemEntries($"{proc}/fd"))
        {
            if (new FileInfo(fd).LinkTarget is not { } target)
            {
                // Closed since the folder was listed: the file server opens and closes as it works.
                continue;
            }

            // Files below an export: the root of a detached mount is "/" there, whatever it is on the host.
            bool known = Known().IsMatch(target) || target.StartsWith('/') && BelowExport(target, exported);
            Assert.True(known, $"the VMM holds {target}");
        }
    }

    private static bool BelowExport(string target, string[] exported) =>
        target == "/" || exported.Any(e => File.Exists(e + target) || Directory.Exists(e + target) || new FileInfo(e + target).LinkTarget is not null);

    [GeneratedRegex(@"^(/dev/null|/dev/kvm|socket:\[\d+\]|pipe:\[\d+\]|anon_inode:.*|/memfd:[\w-]+ \(deleted\)|.*\.console)$")]
    private static partial Regex Known();
}

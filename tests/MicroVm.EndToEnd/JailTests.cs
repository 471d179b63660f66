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
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID");
        }

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

        // Another name of the file was truncated by a process without its owner's rights: that clears the set-uid bit.
        Assert.Equal((UnixFileMode)0b111_101_101, File.GetUnixFileMode(Path.Combine(writable, "d/f")) & (UnixFileMode)0xFFF);
    }

    private static void CheckThreads(string proc)
    {
        List<string> kinds = [];
        HashSet<string> users = [];
        foreach (string task in Directory.GetDirectories($"{proc}/task"))
        {
            Dictionary<string, string> status = File.ReadAllLines($"{task}/status").Select(l => l.Split(":\t", 2)).ToDictionary(l => l[0], l => l[^1].Trim());
            string name = status["Name"];
            kinds.Add(name);
            users.Add(status["Uid"]);
            users.Add(status["Gid"]);
            Assert.Equal(("1", "2"), (status["NoNewPrivs"], status["Seccomp"]));
            Assert.Equal(FileServerCapabilities, status["CapBnd"]);
            if (name.StartsWith("vcpu", StringComparison.Ordinal))
            {
                Assert.Equal((NoCapabilities, NoCapabilities, "2"), (status["CapEff"], status["CapPrm"], status["Seccomp_filters"]));
            }
            else if (name.StartsWith("fs", StringComparison.Ordinal))
            {
                Assert.Equal("2", status["Seccomp_filters"]);
            }
        }

        // A user of its own, the same for all and whatever its real, effective, saved and file system ids.
        string[] ids = Assert.Single(users).Split('\t');
        Assert.InRange(int.Parse(Assert.Single(ids.Distinct()), CultureInfo.InvariantCulture), 0x7000_0000, int.MaxValue);
        Assert.Contains("vcpu0", kinds);
        Assert.Contains(kinds, k => k.StartsWith("fs", StringComparison.Ordinal));
    }

    private static void CheckDescriptors(string proc, string[] exported)
    {
        foreach (string fd in Directory.GetFileSystemEntries($"{proc}/fd"))
        {
            string target = new FileInfo(fd).LinkTarget!;

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

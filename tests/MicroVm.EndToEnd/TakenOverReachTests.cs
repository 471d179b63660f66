using System.Globalization;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>
/// A container's VMM that was taken over, in its jail: what its threads reach by calls that their filters allow. That is no file beside the
/// exports, no user beside the container's, and no more memory than the VM's and a stated overhead.
/// </summary>
public sealed class TakenOverReachTests
{
    private const string Files = "fs0-requests", Loop = "microvm-vmm", Vcpu = "vcpu0";
    private const long SYS_mmap = 9, SYS_munmap = 11, SYS_fchmod = 91, SYS_fchown = 93, SYS_setresuid = 117, SYS_openat = 257, SYS_mkdirat = 258, SYS_mknodat = 259;
    private const long SYS_renameat = 264, SYS_linkat = 265, SYS_close = 3, SYS_prlimit64 = 302, SYS_unlinkat = 263;
    private const long MAP_POPULATE = 0x8000, AT_REMOVEDIR = 0x200, Any = -1;
    private static readonly string Up = string.Concat(Enumerable.Repeat("../", 20));

    [SkippableFact]
    public void NoThreadOpensAFileBesideTheExports()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        string beside = Directory.CreateTempSubdirectory("microvm-taken-").FullName;
        try
        {
            string secret = Path.Combine(beside, "secret"), writable = Volume("rw"), readOnly = Volume("ro");
            File.WriteAllText(secret, "secret");
            File.WriteAllText(Path.Combine(readOnly, "f"), "kept");
            File.CreateSymbolicLink(Path.Combine(writable, "leads-out"), secret);
            bundle.AddMount("/v", writable, "bind", "rbind");
            bundle.AddMount("/ro", readOnly, "bind", "rbind", "ro");
            using Container container = Container.Start(bundle, "--vcpus", "1");
            container.WaitForOutput("ready");
            int vmm = Assert.Single(container.VmmPids());
            int[] fds = [.. Directory.GetFileSystemEntries($"/proc/{vmm}/fd").Select(f => int.Parse(Path.GetFileName(f), CultureInfo.InvariantCulture)).Order()];
            Assert.True(fds.Length > 10, $"{fds.Length} descriptors");
            bool found = false;
            foreach (string thread in (string[])[Files, Loop, Vcpu])
            {
                using TakenOverThread taken = TakenOverThread.Take(vmm, thread);
                string[] names =
                [
                    secret, "/etc/passwd", "/proc/1/root/etc/passwd", "/dev/mem", $"{Up}{secret}", $"{Up}proc/self/status", "../secret", "../rw/leads-out", "../ro/f",
                    "leads-out", "/leads-out",
                ];
                foreach (int fd in fds.Append(Libc.AT_FDCWD))
                {
                    // Its own /proc/self/fd leads to every descriptor: no further than these.
                    bool leadsToDescriptors = thread != Vcpu && Opens(taken, fd, $"{fds[0]}", Libc.O_PATH);
                    found |= leadsToDescriptors;
                    string[] more = leadsToDescriptors ? [.. fds.SelectMany(n => (string[])[$"{n}/../secret", $"{n}/{Up}{secret}", $"{n}/leads-out"])] : [];
                    foreach (string name in names.Concat(more))
                    {
                        long? result = taken.Call(SYS_openat, fd, taken.Text(name), Libc.O_RDONLY);
                        Assert.True(result < 0, $"{thread} opens {name} below {fd}: {result}");
                    }

                    if (thread != Files)
                    {
                        continue;
                    }

                    // Nothing of the host gets a name in an export, and no device is made.
                    Fails(taken, SYS_linkat, Libc.AT_FDCWD, taken.Text(secret), fd, taken.Text("made", 1), 0);
                    Fails(taken, SYS_renameat, Libc.AT_FDCWD, taken.Text(secret), fd, taken.Text("made", 1));
                    Fails(taken, SYS_mknodat, fd, taken.Text("made"), Libc.S_IFBLK | 0x1b6, 0x800);
                }
            }

            Assert.True(found, "the VMM has no /proc/self/fd");
            using (TakenOverThread taken = TakenOverThread.Take(vmm, Files))
            {
                // What it was given, it has; what is read-only stays so, by whatever way it is asked.
                int rw = Fd(taken, "v-only"), ro = Fd(taken, "f");
                Assert.Equal(0, taken.Call(SYS_mkdirat, rw, taken.Text("made"), 0x1ff));
                Assert.Equal(0, taken.Call(SYS_unlinkat, rw, taken.Text("made"), AT_REMOVEDIR));
                Assert.Equal(-(long)Errno.EROFS, taken.Call(SYS_mkdirat, ro, taken.Text("made"), 0x1ff));
                Assert.Equal(-(long)Errno.EROFS, taken.Call(SYS_openat, ro, taken.Text("new"), Libc.O_CREAT | Libc.O_WRONLY, 0x1b6));
                Assert.Equal(-(long)Errno.EROFS, taken.Call(SYS_openat, ro, taken.Text("f"), Libc.O_WRONLY));
                Assert.True(taken.Call(SYS_renameat, rw, taken.Text("v-only"), ro, taken.Text("f", 1)) < 0);
                Assert.True(taken.Call(SYS_linkat, ro, taken.Text("f"), rw, taken.Text("made", 1), 0) < 0);

                int Fd(TakenOverThread by, string name) => fds.First(fd => Opens(by, fd, name));
            }

            Assert.Equal("secret", File.ReadAllText(secret));
            Assert.Equal("kept", File.ReadAllText(Path.Combine(readOnly, "f")));
            Assert.Equal(["ro", "rw", "secret"], Entries(beside));
            Assert.Equal(["leads-out", "v-only"], Entries(writable));
            Assert.Equal(["f"], Entries(readOnly));

            // None of that was in the VM's way.
            Assert.Equal(0, Shell.Run(Installation.Runtime, "--root", container.Root, "exec", container.Id, "cat", "/ro/f").ExitCode);

            string Volume(string name)
            {
                string folder = Directory.CreateDirectory(Path.Combine(beside, name)).FullName;
                if (name == "rw")
                {
                    File.WriteAllText(Path.Combine(folder, "v-only"), "");
                }

                return folder;
            }
        }
        finally
        {
            Directory.Delete(beside, recursive: true);
        }
    }

    /// <summary>root.readonly holds on the host: whoever has the guest, or its VMM, cannot write to the root either.</summary>
    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void AReadOnlyRootIsReadOnlyOnTheHost(bool isReadOnly)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        bundle.Config["root"]!["readonly"] = isReadOnly;
        using Container container = Container.Start(bundle, "--vcpus", "1");
        container.WaitForOutput("ready");
        int vmm = Assert.Single(container.VmmPids());
        using TakenOverThread taken = TakenOverThread.Take(vmm, Files);
        int[] roots =
        [
            .. Directory.GetFileSystemEntries($"/proc/{vmm}/fd").Select(f => int.Parse(Path.GetFileName(f), CultureInfo.InvariantCulture)).Order()
                .Where(fd => Opens(taken, fd, "bin/busybox", Libc.O_PATH)),
        ];
        Assert.NotEmpty(roots);
        long expected = isReadOnly ? -(long)Errno.EROFS : 0;
        foreach (int root in roots)
        {
            Assert.Equal(expected, taken.Call(SYS_mkdirat, root, taken.Text($"made-{root}"), 0x1ff));
        }

        Assert.Equal(!isReadOnly, Directory.Exists(Path.Combine(bundle.Rootfs, $"made-{roots[0]}")));
    }

    /// <summary>With a user namespace, what a taken-over VMM may become and make is the container's.</summary>
    [SkippableFact]
    public void NoUserBesideTheContainersIsReached()
    {
        Installation.RequireKvm();
        const int first = 100_000, count = 1000;
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000");
        bundle.Linux["namespaces"]!.AsArray().Add(JsonNode.Parse("""{"type":"user"}"""));
        bundle.Linux["uidMappings"] = JsonNode.Parse($$"""[{"containerID":0,"hostID":{{first}},"size":{{count}}}]""");
        bundle.Linux["gidMappings"] = bundle.Linux["uidMappings"]!.DeepClone();
        string volume = Directory.CreateDirectory(Path.Combine(bundle.Path, "volume")).FullName, open = Directory.CreateDirectory(Path.Combine(volume, "open")).FullName;
        File.WriteAllText(Path.Combine(open, "roots"), "");
        File.SetUnixFileMode(open, (UnixFileMode)0x1ff);
        bundle.AddMount("/v", volume, "bind", "rbind");
        Shell.Run("chown", "-hR", $"{first}:{first}", bundle.Rootfs, volume).EnsureSuccess();
        Shell.Run("chown", "0:0", Path.Combine(open, "roots")).EnsureSuccess();
        using Container container = Container.Start(bundle, "--vcpus", "1");
        container.WaitForOutput("ready");
        int vmm = Assert.Single(container.VmmPids());
        using TakenOverThread taken = TakenOverThread.Take(vmm, Files);
        foreach (int user in (int[])[0, 1, first - 1, first + count, 0x7000_0000])
        {
            Assert.Equal(-(long)Errno.EINVAL, taken.Call(SYS_setresuid, Any, user, Any));
        }

        // As the container's root, with every capability that the thread has.
        Assert.Equal(0, taken.Call(SYS_setresuid, Any, first, Any));
        int folder = Directory.GetFileSystemEntries($"/proc/{vmm}/fd").Select(f => int.Parse(Path.GetFileName(f), CultureInfo.InvariantCulture)).First(fd => Opens(taken, fd, "open/roots", Libc.O_PATH));
        Assert.Equal(-(long)Errno.EACCES, taken.Call(SYS_openat, folder, taken.Text("open/roots"), Libc.O_WRONLY));
        long? made = taken.Call(SYS_openat, folder, taken.Text("open/sh"), Libc.O_CREAT | Libc.O_WRONLY, 0x1ff);
        Assert.True(made >= 0, $"{made}");
        Assert.Equal(-(long)Errno.EINVAL, taken.Call(SYS_fchown, made!.Value, 0, 0));
        Assert.Equal(0, taken.Call(SYS_fchmod, made.Value, 0x9ed));
        Assert.Equal($"{first} 4755\n", Shell.Run("stat", "-c", "%u %a", Path.Combine(open, "sh")).StandardOutput);
        Assert.Equal(0, taken.Call(SYS_close, made.Value));
    }

    /// <summary>Private memory ends at RLIMIT_DATA, by an error; all memory at the cgroup's limit, by the end of that VMM alone.</summary>
    [SkippableFact]
    public void MemoryIsBounded()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; sleep 1000"), other = Bundle.Create("echo ready; cat");
        bundle.Linux["resources"]!["memory"] = new JsonObject { ["limit"] = 64 << 20 };
        using Container sibling = Container.Start(other, "--vcpus", "1"), container = Container.Start(bundle, "--vcpus", "1");
        sibling.WaitForOutput("ready");
        container.WaitForOutput("ready");
        int vmm = Assert.Single(container.VmmPids());

        // The limit is that of the VM (128 MiB) and 128 MiB.
        const long mib = 1 << 20, limit = 256 * mib;
        Assert.Equal($"{limit}", JailTests.OfCgroup($"/proc/{vmm}", "memory", "memory.limit_in_bytes", "memory.max"));
        using (TakenOverThread taken = TakenOverThread.Take(vmm, Vcpu))
        {
            const long readWrite = Libc.PROT_READ | Libc.PROT_WRITE, privately = Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS, shared = Libc.MAP_SHARED | Libc.MAP_ANONYMOUS;
            Assert.Equal(-(long)Errno.ENOMEM, taken.Call(SYS_mmap, 0, 512 * mib, readWrite, privately, -1, 0));
            long? some = taken.Call(SYS_mmap, 0, 64 * mib, readWrite, privately | MAP_POPULATE, -1, 0);
            Assert.True(some > 0, $"{some}");
            Assert.Equal(0, taken.Call(SYS_munmap, some!.Value, 64 * mib));
            Assert.Equal(-(long)Errno.EACCES, taken.Call(SYS_prlimit64, 0, (long)Libc.RLIMIT_DATA, taken.Text(""), 0));

            // In parts, so that one of them is under way when the limit is met; each part is mapped whether its pages were to be had or not.
            long? part = 1;
            for (int i = 0; i < 8 && part is not null; i++)
            {
                part = taken.Call(SYS_mmap, 0, 64 * mib, readWrite, shared | MAP_POPULATE, -1, 0);
            }

            Assert.Null(part);
        }

        CommandResult ended = container.Wait();
        Assert.True(ended.ExitCode == 1, ended.ToString());
        Assert.Contains("microvm-vmm was ended by signal 9", ended.StandardError, StringComparison.Ordinal);
        sibling.Input.Write("still here\n"u8);
        sibling.Input.Flush();
        sibling.WaitForOutput("still here");
    }

    private static void Fails(TakenOverThread taken, long number, params ReadOnlySpan<long> arguments)
    {
        long? result = taken.Call(number, arguments);
        Assert.True(result < 0, $"call {number}: {result?.ToString(CultureInfo.InvariantCulture) ?? "ended the VMM"}");
    }

    private static bool Opens(TakenOverThread taken, int folder, string name, int flags = Libc.O_RDONLY)
    {
        long? fd = taken.Call(SYS_openat, folder, taken.Text(name), flags);
        if (fd >= 0)
        {
            Assert.Equal(0, taken.Call(SYS_close, fd.Value));
        }

        return fd >= 0;
    }

    private static string[] Entries(string folder) =>
        [.. Directory.EnumerateFileSystemEntries(folder).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal)];
}

using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Tests;

/// <summary>Starting a VMM: what it is told and inherits, and how its end is told. A small program stands in for it.</summary>
public sealed class VmmTests : IDisposable
{
    private static readonly VmShape Shape = new(64, 2, "host", "extra=1", []);
    private readonly TempFolder _folder = new();

    public VmmTests()
    {
        File.WriteAllText(_folder["vmlinux"], "kernel");
        File.WriteAllText(_folder["vmlinux-pvm"], "kernel for PVM");
        File.WriteAllText(_folder["agent.img"], "image");
        File.WriteAllText(_folder["initramfs.cpio"], "initramfs");
        Directory.CreateDirectory(_folder["rootfs"]);
    }

    public void Dispose() => _folder.Dispose();

    [SkippableFact]
    public void ItInheritsWhatItIsToldAndNothingElse()
    {
        using SafeFd leak = new(MicroVm.Linux.Native.Libc.open("/dev/zero", 0, 0));
        using Vmm vmm = Start("pause();");
        string proc = $"/proc/{vmm.Process.Pid}";
        string number = File.ReadAllText($"{proc}/cmdline").Split('\0')[2];
        VmmConfig config = JsonSerializer.Deserialize(File.ReadAllText($"{proc}/fd/{number}"), VmmJson.Default.VmmConfig)!;
        Assert.Equal((64, 2, VmCommandLine.Base + " " + VmCommandLine.AgentImage + " extra=1"), (config.MemoryMiB, config.Vcpus, config.CommandLine));
        Assert.True(config.DieWithParent);
        Assert.True(config.FilterSystemCalls);
        Assert.Equal("/vsock", config.Vsock!.SocketPath);
        Dictionary<int, string> fds = Directory.GetFileSystemEntries($"{proc}/fd")
            .ToDictionary(f => int.Parse(Path.GetFileName(f), System.Globalization.CultureInfo.InvariantCulture), f => new FileInfo(f).LinkTarget!);
        Assert.Equal(_folder["vmlinux"], fds[config.Kernel!.Fd!.Value]);
        Assert.Equal(_folder["vmlinux-pvm"], fds[config.PvmKernel!.Fd!.Value]);
        Assert.Equal(_folder["agent.img"], fds[Assert.Single(config.Pmem).Fd!.Value]);
        Assert.Equal("/dev/kvm", fds[config.Kvm!.Fd!.Value]);
        Assert.Null(config.Initrd);

        // Trees without parents are their own "/".
        FsExport export = Assert.Single(Assert.Single(config.Fs).Exports);
        Assert.Equal(("/", "/"), (fds[export.File.Fd!.Value], fds[config.ProcSelfFd!.Fd!.Value]));
        Assert.Equal(["/dev/null", "/dev/null"], new[] { fds[0], fds[1] });
        Assert.DoesNotContain("/dev/zero", fds.Values);
        Assert.Equal(Enumerable.Range(0, fds.Count), fds.Keys.Order());
        Assert.Equal(number, $"{fds.Count - 1}");
    }

    [SkippableTheory]
    [InlineData("dprintf(2, \"no KVM here\\n\"); return 1;", "test: no KVM here")]
    [InlineData("dprintf(2, \"kernel (descriptor %d): too short\\n\", field(argv[2], \"\\\"kernel\\\":\")); return 1;", "test: kernel {vmlinux}: too short")]
    [InlineData("return 3;", "test: the guest kernel panicked or reset the VM")]
    [InlineData("return 4;", "test: the guest triple-faulted")]
    [InlineData("dprintf(2, \"rip 5\\n\"); return 5;", "test: the guest cannot run on: rip 5")]
    [InlineData("for (int i = 0; i < 300; i++) dprintf(2, \"the driver broke a rule\\n\"); dprintf(2, \"rip 5\\n\"); return 5;", "test: the guest cannot run on: rip 5")]
    [InlineData("return 99;", "test: microvm-vmm exited with status 99")]
    public void ItsEndIsTold(string program, string told)
    {
        using Vmm vmm = Start(program);
        Assert.NotNull(vmm.Process.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal(told.Replace("{vmlinux}", _folder["vmlinux"], StringComparison.Ordinal), vmm.Describe("test"));
    }

    [SkippableFact]
    public void ItsEndBySignalIsTold()
    {
        using Vmm vmm = Start("pause();");
        vmm.Process.Signal(9);
        Assert.NotNull(vmm.Process.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal("test: microvm-vmm was ended by signal 9", vmm.Describe("test"));
    }

    [SkippableFact]
    public void APanicIsToldWithTheEndOfTheConsole()
    {
        using Vmm vmm = Start("int fd = field(argv[2], \"\\\"serial\\\":\"); for (int i = 1; i < 4; i++) dprintf(fd, \"line %d\\n\", i); return 3;");
        Assert.NotNull(vmm.Process.Wait(TimeSpan.FromSeconds(30)));
        Assert.True(SpinWait.SpinUntil(() => vmm.Describe("x").EndsWith("line 1\nline 2\nline 3", StringComparison.Ordinal), TimeSpan.FromSeconds(30)), vmm.Describe("x"));
    }

    [SkippableFact]
    public void AVmmThatEndsBeforeTheAgentIsReadyIsAnError()
    {
        using GuestReady ready = GuestReady.Listen(_folder["vsock"]);
        using Vmm vmm = Start("return 4;");
        Assert.Equal("the VM did not start: the guest triple-faulted", Assert.Throws<SandboxException>(() => ready.Wait(vmm, TimeSpan.FromSeconds(60))).Message);
    }

    [SkippableFact]
    public void AnInstallationForPvmHostsNeedsNoOtherKernel()
    {
        RuntimeFiles files = new(_folder["vmm"], "/no/kernel", _folder["agent.img"]) { PvmKernel = _folder["vmlinux-pvm"] };
        Assert.True(files.HasOnlyPvmKernel);
        Compile("pause();");
        using Vmm vmm = Vmm.Start(files, Shape, _folder["vsock"], [], null, null);
        string proc = $"/proc/{vmm.Process.Pid}";
        string number = File.ReadAllText($"{proc}/cmdline").Split('\0')[2];
        VmmConfig config = JsonSerializer.Deserialize(File.ReadAllText($"{proc}/fd/{number}"), VmmJson.Default.VmmConfig)!;
        Assert.Null(config.Kernel);
        Assert.Equal(_folder["vmlinux-pvm"], new FileInfo($"{proc}/fd/{config.PvmKernel!.Fd}").LinkTarget);
    }

    [SkippableFact]
    public void MissingPartsAreNamed()
    {
        Compile("return 0;");
        RuntimeFiles files = new(_folder["vmm"], _folder["vmlinux"], _folder["agent.img"]);
        Assert.Contains("no-vmm", Refused(files with { Vmm = _folder["no-vmm"] }), StringComparison.Ordinal);
        Assert.Contains("guest kernel /no/kernel cannot be opened", Refused(files with { Kernel = "/no/kernel" }), StringComparison.Ordinal);
        Assert.Contains($"guest kernel {_folder.Path} is not a regular file", Refused(files with { Kernel = _folder.Path }), StringComparison.Ordinal);
        Assert.Contains("guest kernel /no/pvm cannot be opened", Refused(files with { PvmKernel = "/no/pvm" }), StringComparison.Ordinal);
        Assert.Contains("guest kernel /no/pvm cannot be opened", Refused(files with { Kernel = "/no/kernel", PvmKernel = "/no/pvm" }), StringComparison.Ordinal);
        Assert.Contains("agent image /no/image cannot be opened", Refused(files with { AgentImage = "/no/image" }), StringComparison.Ordinal);
        Assert.Contains("initramfs /no/initramfs cannot be opened", Refused(files with { Initramfs = "/no/initramfs" }), StringComparison.Ordinal);
        Assert.Contains("the CPUs 1000", Refused(files, Shape with { HostCpus = [1000] }), StringComparison.Ordinal);
    }

    private string Refused(RuntimeFiles files, VmShape? shape = null) =>
        Assert.Throws<SandboxException>(() => Vmm.Start(files, shape ?? Shape, _folder["vsock"], [], null, null)).Message;

    private Vmm Start(string program)
    {
        Compile(program);
        using Export export = Export.Open("rootfs", _folder["rootfs"], readOnly: false, "rootfs");
        RuntimeFiles files = new(_folder["vmm"], _folder["vmlinux"], _folder["agent.img"]) { PvmKernel = _folder["vmlinux-pvm"] };
        Vmm vmm = Vmm.Start(files, Shape, _folder["vsock"], [export], null, null);
        vmm.ReadConsole();
        return vmm;
    }

    // Nothing but a static executable runs in the jail. field() finds a descriptor in the configuration.
    private void Compile(string body)
    {
        Skip.IfNot(MicroVm.Linux.Native.Libc.geteuid() == 0 && File.Exists("/dev/kvm"), "not root, or no /dev/kvm: starting a VMM was NOT tested");
        Skip.IfNot(File.Exists("/usr/bin/gcc"), "gcc is not installed: starting a VMM was NOT tested");
        File.WriteAllText(_folder["vmm.c"], $$"""
            #include <stdio.h>
            #include <stdlib.h>
            #include <string.h>
            #include <unistd.h>
            static int field(const char *number, const char *name) {
                static char text[65536];
                for (long n, at = strlen(text); (n = read(atoi(number), text + at, sizeof text - 1 - at)) > 0; at += n);
                return atoi(strstr(strstr(text, name), "\"fd\":") + 5);
            }
            int main(int argc, char **argv) { (void)field; {{body}} return 0; }
            """);
        using System.Diagnostics.Process gcc = System.Diagnostics.Process.Start("/usr/bin/gcc", ["-w", "-static", "-o", _folder["vmm"], _folder["vmm.c"]]);
        gcc.WaitForExit();
        Assert.Equal(0, gcc.ExitCode);
    }
}

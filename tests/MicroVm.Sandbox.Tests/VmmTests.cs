using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Tests;

/// <summary>Starting a VMM: what it is told and inherits, and how its end is told. A shell script stands in for it.</summary>
public sealed class VmmTests : IDisposable
{
    private static readonly VmShape Shape = new(64, 2, "extra=1", []);
    private readonly TempFolder _folder = new();

    public VmmTests()
    {
        File.WriteAllText(_folder["vmlinux"], "kernel");
        File.WriteAllText(_folder["agent.img"], "image");
        File.WriteAllText(_folder["initramfs.cpio"], "initramfs");
        Directory.CreateDirectory(_folder["rootfs"]);
    }

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void ItInheritsWhatItIsToldAndNothingElse()
    {
        using SafeFd leak = new(MicroVm.Linux.Native.Libc.open("/dev/zero", 0, 0));
        using Vmm vmm = Start($"""
            cat /proc/self/fd/$2 > {_folder["config"]}.new
            sh -c "ls -l /proc/$$/fd > {_folder["fds"]}"
            grep SigBlk /proc/$$/status >> {_folder["fds"]}
            mv {_folder["config"]}.new {_folder["config"]}
            exec sleep 1000
            """);
        Assert.True(SpinWait.SpinUntil(() => File.Exists(_folder["config"]), TimeSpan.FromSeconds(30)));
        VmmConfig config = JsonSerializer.Deserialize(File.ReadAllText(_folder["config"]), VmmJson.Default.VmmConfig)!;
        Assert.Equal((64, 2, KernelCommandLine.Base + " " + KernelCommandLine.AgentImage + " extra=1"), (config.MemoryMiB, config.Vcpus, config.CommandLine));
        Assert.True(config.DieWithParent);
        Assert.Equal(_folder["vsock"], config.Vsock!.SocketPath);
        Dictionary<int, string> fds = File.ReadLines(_folder["fds"])
            .Where(l => l.Contains(" -> ", StringComparison.Ordinal))
            .Select(l => l.Split(" -> "))
            .ToDictionary(p => int.Parse(p[0].Split(' ')[^1], System.Globalization.CultureInfo.InvariantCulture), p => p[1]);
        Assert.Equal(_folder["vmlinux"], fds[config.Kernel.Fd!.Value]);
        Assert.Equal(_folder["agent.img"], fds[Assert.Single(config.Pmem).Fd!.Value]);
        Assert.Null(config.Initrd);
        FsExport export = Assert.Single(Assert.Single(config.Fs).Exports);
        Assert.Equal(_folder["rootfs"], fds[export.File.Fd!.Value]);
        Assert.Equal(["/dev/null", "/dev/null"], new[] { fds[0], fds[1] });
        Assert.DoesNotContain("/dev/zero", fds.Values);

        // The shell keeps its script open at 10 or above.
        Assert.Equal(8, fds.Keys.Count(n => n < 10));
        Assert.Contains("SigBlk:\t0000000000000000", File.ReadAllText(_folder["fds"]), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("echo 'no KVM here' >&2; exit 1", "test: no KVM here")]
    [InlineData("echo 'kernel (descriptor 3): too short' >&2; exit 1", "test: kernel {vmlinux}: too short")]
    [InlineData("exit 3", "test: the guest kernel panicked or reset the VM")]
    [InlineData("exit 4", "test: the guest triple-faulted")]
    [InlineData("echo 'rip 5' >&2; exit 5", "test: the guest cannot run on: rip 5")]
    [InlineData("exit 99", "test: microvm-vmm exited with status 99")]
    [InlineData("kill -9 $$", "test: microvm-vmm was ended by signal 9")]
    public void ItsEndIsTold(string script, string told)
    {
        using Vmm vmm = Start(script);
        Assert.NotNull(vmm.Process.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal(told.Replace("{vmlinux}", _folder["vmlinux"], StringComparison.Ordinal), vmm.Describe("test"));
    }

    [Fact]
    public void APanicIsToldWithTheEndOfTheConsole()
    {
        using Vmm vmm = Start("for i in 1 2 3; do echo line $i > /proc/self/fd/$(sed 's/.*serial....fd..\\([0-9]*\\).*/\\1/' /proc/self/fd/$2); done; exit 3");
        Assert.NotNull(vmm.Process.Wait(TimeSpan.FromSeconds(30)));
        Assert.True(SpinWait.SpinUntil(() => vmm.Describe("x").EndsWith("line 1\nline 2\nline 3", StringComparison.Ordinal), TimeSpan.FromSeconds(30)), vmm.Describe("x"));
    }

    [Fact]
    public void AVmmThatEndsBeforeTheAgentIsReadyIsAnError()
    {
        using GuestReady ready = GuestReady.Listen(_folder["vsock"]);
        using Vmm vmm = Start("exit 4");
        Assert.Equal("the VM did not start: the guest triple-faulted", Assert.Throws<SandboxException>(() => ready.Wait(vmm)).Message);
    }

    [Fact]
    public void MissingPartsAreNamed()
    {
        RuntimeFiles files = new(_folder["no-vmm"], _folder["vmlinux"], _folder["agent.img"]);
        Assert.Contains("no-vmm", Refused(files), StringComparison.Ordinal);
        Assert.Contains("guest kernel /no/kernel cannot be opened", Refused(files with { Kernel = "/no/kernel" }), StringComparison.Ordinal);
        Assert.Contains($"guest kernel {_folder.Path} is not a regular file", Refused(files with { Kernel = _folder.Path }), StringComparison.Ordinal);
        Assert.Contains("agent image /no/image cannot be opened", Refused(files with { AgentImage = "/no/image" }), StringComparison.Ordinal);
        Assert.Contains("initramfs /no/initramfs cannot be opened", Refused(files with { Initramfs = "/no/initramfs" }), StringComparison.Ordinal);
        Assert.Contains("the CPUs 1000", Refused(files, Shape with { HostCpus = [1000] }), StringComparison.Ordinal);
        Assert.Contains("shorter --root", Assert.Throws<SandboxException>(() => GuestReady.Listen(_folder[new string('x', 120)])).Message, StringComparison.Ordinal);
    }

    private string Refused(RuntimeFiles files, VmShape? shape = null) =>
        Assert.Throws<SandboxException>(() => Vmm.Start(files, shape ?? Shape, _folder["vsock"], [], null, null)).Message;

    private Vmm Start(string script)
    {
        File.WriteAllText(_folder["vmm"], "#!/bin/sh\n" + script + "\n");
        File.SetUnixFileMode(_folder["vmm"], UnixFileMode.UserRead | UnixFileMode.UserExecute);
        using Export export = Export.Open("rootfs", _folder["rootfs"], readOnly: false, "rootfs");
        return Vmm.Start(new RuntimeFiles(_folder["vmm"], _folder["vmlinux"], _folder["agent.img"]), Shape, _folder["vsock"], [export], null, null);
    }
}

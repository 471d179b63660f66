using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Templates;

/// <summary>Boots a VM until its agent answers, tries a container in it, and saves it. Nothing of a container is in it then.</summary>
public static class TemplateMaker
{
    private const uint FileMode = 0b110_000_000;
    private const int EndMilliseconds = 10_000;
    private const int StreamsMilliseconds = 5000;
    private const int PollMilliseconds = 5;

    /// <summary>Makes the template of the VMs that have the runtime's own kernel and agent and this size; one that exists is replaced.</summary>
    /// <param name="shape">The VM's size.</param>
    /// <param name="timeout">How long the guest may take to boot.</param>
    /// <returns>The template's name.</returns>
    /// <exception cref="SandboxException">The VM did not start, or could not be saved.</exception>
    public static string Create(VmShape shape, TimeSpan timeout)
    {
        ArgumentNullException.ThrowIfNull(shape);
        RuntimeFiles files = RuntimeFiles.Locate();
        TemplateStore store = new();
        string? folder = null;
        try
        {
            TemplateKey key = TemplateKey.Of(files, shape) ?? throw new SandboxException("a VM with kernel arguments of its own is not started from a template");
            folder = store.MakeNewFolder();
            Save(files, shape, folder, timeout);
            Try(files, shape, folder, timeout);
            WriteDurably(Path.Combine(folder, TemplateStore.KeyFile), Encoding.UTF8.GetBytes(key.Text));
            store.Publish(folder, key);
            folder = null;
            return key.Name;
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the template cannot be made: {e.Message}", e);
        }
        finally
        {
            if (folder is not null)
            {
                Directory.Delete(folder, recursive: true);
            }
        }
    }

    private static void Save(RuntimeFiles files, VmShape shape, string folder, TimeSpan timeout)
    {
        string vm = Path.Combine(folder, "vm");
        string vsock = Path.Combine(vm, "vsock");
        GuestReady.MakeFolder(vsock);
        using SafeFd state = MakeFile(Path.Combine(folder, TemplateStore.StateFile)), memory = MakeFile(Path.Combine(folder, TemplateStore.MemoryFileName));
        using (GuestReady ready = GuestReady.Listen(vsock))
        using (Vmm vmm = Vmm.StartForTemplate(files, shape, vsock))
        {
            vmm.ReadConsole();
            ready.Wait(vmm, timeout);
            using (Guest guest = Guest.Connect(vmm, vsock, timeout))
            {
                // Each VM that starts from the template gets an identity of its own, by the same calls.
                GuestIdentity.Give(guest);
                TrialContainer.Run(vmm, guest, vsock, Path.Combine(folder, "trial"), timeout);
            }

            AwaitEndOfStreams(vmm);
            _ = vmm.Control.Request(new ControlRequest { Operation = ControlOperation.Save }, [state, memory]);
            _ = vmm.Process.Wait(TimeSpan.FromMilliseconds(EndMilliseconds));
        }

        Sync(state, TemplateStore.StateFile);
        Sync(memory, TemplateStore.MemoryFileName);
        Directory.Delete(vm, recursive: true);
        Directory.Delete(Path.Combine(folder, "trial"), recursive: true);
    }

    /// <summary>Starts a VM from the files: that it can is what a template is for, and the pages that it writes are those that others will.</summary>
    private static void Try(RuntimeFiles files, VmShape shape, string folder, TimeSpan timeout)
    {
        string vm = Path.Combine(folder, "vm");
        string vsock = Path.Combine(vm, "vsock");
        GuestReady.MakeFolder(vsock);
        SafeFd state = OpenFile(Path.Combine(folder, TemplateStore.StateFile)), memory = OpenFile(Path.Combine(folder, TemplateStore.MemoryFileName));
        using (Template template = new("", folder, state, memory, null))
        using (Vmm vmm = Vmm.StartFrom(template, files, shape, vsock))
        {
            vmm.ReadConsole();
            using Guest guest = Guest.Connect(vmm, vsock, timeout);
            GuestIdentity.Give(guest);
            TrialContainer.Run(vmm, guest, vsock, Path.Combine(folder, "trial"), timeout);
            WriteDurably(Path.Combine(folder, TemplateStore.PagesFile), WorkingSet.Read(vmm.Process.Pid, memory).ToArray());
        }

        Directory.Delete(vm, recursive: true);
        Directory.Delete(Path.Combine(folder, "trial"), recursive: true);
    }

    private static SafeFd OpenFile(string path) => SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);

    /// <summary>A guest that has closed its end of every stream need not be told of their end when it is restored.</summary>
    private static void AwaitEndOfStreams(Vmm vmm)
    {
        long deadline = Environment.TickCount64 + StreamsMilliseconds;
        while (vmm.Control.ReadCounters().GetValueOrDefault("vsock.streams") > 0 && Environment.TickCount64 < deadline)
        {
            Thread.Sleep(PollMilliseconds);
        }
    }

    private static SafeFd MakeFile(string path) =>
        SafeFd.From(Libc.open(path, Libc.O_RDWR | Libc.O_CREAT | Libc.O_EXCL | Libc.O_CLOEXEC, FileMode), "open", path);

    private static void WriteDurably(string path, byte[] bytes)
    {
        using SafeFd file = MakeFile(path);
        HostFile.WriteAll(file, bytes, path);
        Sync(file, path);
    }

    private static void Sync(SafeFd file, string name) => Check.Result(Libc.fsync(file.Value), "fsync", name);
}

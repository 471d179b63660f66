using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd.Support;

/// <summary>One `microvm-vmm`, started by hand in a folder of its own: a VM without agent and container.</summary>
internal sealed class BareVm : IDisposable
{
    private readonly Process _process;
    private readonly Task<string> _stderr;

    private BareVm(string folder, VmmConfig config, bool underShell)
    {
        Folder = folder;
        string file = Path.Combine(folder, "vm.json");
        config.Serial = FileReference.FromPath(Path.Combine(folder, "serial"));
        config.Control = FileReference.FromPath(Path.Combine(folder, "control"));
        config.DieWithParent = underShell;
        File.WriteAllBytes(file, JsonSerializer.SerializeToUtf8Bytes(config, VmmJson.Default.VmmConfig));
        ProcessStartInfo start = underShell
            ? new ProcessStartInfo("sh", ["-c", "\"$@\" & echo $! >$0.new; mv $0.new $0; wait $!", PidFile, Installation.Vmm, "--config", file])
            : new ProcessStartInfo(Installation.Vmm, ["--config", file]);
        start.RedirectStandardError = true;
        _process = Process.Start(start)!;
        _stderr = _process.StandardError.ReadToEndAsync();
    }

    /// <summary>The VM's folder; deleted on Dispose.</summary>
    public string Folder { get; }

    public bool HasExited => _process.HasExited;

    private string PidFile => Path.Combine(Folder, "pid");

    /// <summary>What the guest has written to its serial port.</summary>
    public string Serial => File.Exists(Path.Combine(Folder, "serial")) ? File.ReadAllText(Path.Combine(Folder, "serial")) : "";

    /// <summary>Starts a VM; <paramref name="configure"/> gets its folder.</summary>
    public static BareVm Start(Func<string, VmmConfig> configure)
    {
        string folder = Directory.CreateTempSubdirectory("microvm-bare-").FullName;
        return new BareVm(folder, configure(folder), underShell: false);
    }

    /// <summary>Starts a VM that is no child of this process, which may trace it; <paramref name="id"/> is the VMM's.</summary>
    public static BareVm StartApart(Func<string, VmmConfig> configure, out int id)
    {
        string folder = Directory.CreateTempSubdirectory("microvm-bare-").FullName;
        BareVm vm = new(folder, configure(folder), underShell: true);
        DetachedContainer.Eventually(() => File.Exists(vm.PidFile), "the VMM is not started");
        id = int.Parse(File.ReadAllText(vm.PidFile), CultureInfo.InvariantCulture);
        return vm;
    }

    /// <summary>Waits until the guest has written <paramref name="text"/>.</summary>
    public void WaitForSerial(string text)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!Serial.Contains(text, StringComparison.Ordinal))
        {
            if (_process.HasExited || watch.Elapsed > Installation.RunDeadline)
            {
                throw new InvalidOperationException(
                    $"no '{text}' from the guest: {(_process.HasExited ? $"exit status {_process.ExitCode}: {_stderr.Result}" : "deadline passed")}\n{Serial}");
            }

            Thread.Sleep(50);
        }
    }

    /// <summary>Sends one request to the control socket.</summary>
    public ControlResponse Ask(ControlOperation operation) => Ask(new ControlRequest { Operation = operation });

    /// <summary>Sends one request to the control socket, with descriptors, which stay the caller's.</summary>
    public ControlResponse Ask(ControlRequest request, params SafeFd[] fds)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(Path.Combine(Folder, "control")));
        using NetworkStream stream = new(socket);
        using SafeFd sender = SafeFd.From(Libc.fcntl((int)socket.Handle, Libc.F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)");
        FdSender.Send(sender, [.. JsonSerializer.SerializeToUtf8Bytes(request, VmmJson.Default.ControlRequest), (byte)'\n'], fds);
        using StreamReader reader = new(stream, Encoding.UTF8);
        return JsonSerializer.Deserialize(reader.ReadLine()!, VmmJson.Default.ControlResponse)!;
    }

    /// <summary>Waits for the end.</summary>
    /// <returns>The exit status, the guest's serial output and the VMM's standard error.</returns>
    public (VmmExitCode Code, string Serial, string Error) Wait()
    {
        if (!_process.WaitForExit(Installation.RunDeadline))
        {
            throw new TimeoutException($"the VM did not end; serial output so far:\n{Serial}");
        }

        return ((VmmExitCode)_process.ExitCode, Serial, _stderr.Result);
    }

    /// <summary>The most that the VMM has had resident, without the guest's RAM (shared memory), in KiB.</summary>
    public long AnonymousKiB() => long.Parse(
        File.ReadLines($"/proc/{_process.Id}/status").First(l => l.StartsWith("RssAnon:", StringComparison.Ordinal)).Split(' ')[^2],
        CultureInfo.InvariantCulture);

    /// <summary>How many descriptors the VMM has open.</summary>
    public int Descriptors() => Directory.GetFiles($"/proc/{_process.Id}/fd").Length;

    /// <summary>How many threads the VMM has.</summary>
    public int Threads() => Directory.GetDirectories($"/proc/{_process.Id}/task").Length;

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            _process.WaitForExit();
        }

        _process.Dispose();
        Directory.Delete(Folder, recursive: true);
    }
}

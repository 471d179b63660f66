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

    private BareVm(string folder, VmmConfig config)
    {
        Folder = folder;
        string file = Path.Combine(folder, "vm.json");
        config.Serial = FileReference.FromPath(Path.Combine(folder, "serial"));
        config.Control = FileReference.FromPath(Path.Combine(folder, "control"));
        File.WriteAllBytes(file, JsonSerializer.SerializeToUtf8Bytes(config, VmmJson.Default.VmmConfig));
        _process = Process.Start(new ProcessStartInfo(Installation.Vmm, ["--config", file]) { RedirectStandardError = true })!;
        _stderr = _process.StandardError.ReadToEndAsync();
    }

    /// <summary>The VM's folder; deleted on Dispose.</summary>
    public string Folder { get; }

    public bool HasExited => _process.HasExited;

    /// <summary>What the guest has written to its serial port.</summary>
    public string Serial => File.Exists(Path.Combine(Folder, "serial")) ? File.ReadAllText(Path.Combine(Folder, "serial")) : "";

    /// <summary>Starts a VM; <paramref name="configure"/> gets its folder.</summary>
    public static BareVm Start(Func<string, VmmConfig> configure)
    {
        string folder = Directory.CreateTempSubdirectory("microvm-bare-").FullName;
        return new BareVm(folder, configure(folder));
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

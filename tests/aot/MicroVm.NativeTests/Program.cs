using System.Diagnostics;
using System.Reflection;
using MicroVm.Bus.Tests;
using MicroVm.EndToEnd.Runner;
using MicroVm.InstructionEmulator.Tests;
using MicroVm.Jail.Tests;
using MicroVm.Json.Tests;
using MicroVm.Linux.Tests;
using MicroVm.Memory.Tests;
using MicroVm.NativeTests;
using MicroVm.Oci.Tests;
using MicroVm.Ttrpc.Tests;
using MicroVm.Virtio.Tests;
using MicroVm.VmmControl.Tests;

// usage: native-tests RESULTS.trx : runs every test of the assemblies that are compiled into this program.
if (args.Length != 1)
{
    Console.Error.WriteLine("usage: native-tests RESULTS.trx");
    return 2;
}

Assembly[] assemblies =
[
    typeof(MembersTests).Assembly, typeof(LibcAbiTests).Assembly, typeof(SpecDocumentTests).Assembly, typeof(FrameDecoderTests).Assembly,
    typeof(ConfigDocumentTests).Assembly, typeof(GuestMemoryTests).Assembly, typeof(SystemCallFilterTests).Assembly, typeof(AddressBusTests).Assembly,
    typeof(VirtqueueTests).Assembly, typeof(AtomicMemoryTests).Assembly,
];
Stopwatch watch = Stopwatch.StartNew();
List<Outcome> outcomes = [.. assemblies.SelectMany(Discovery.Cases).Select(c => c.Run())];
TrxFile.Write(args[0], outcomes);
int failed = outcomes.Count(o => o.Kind == OutcomeKind.Failed), skipped = outcomes.Count(o => o.Kind == OutcomeKind.NotExecuted);
foreach (Outcome outcome in outcomes.Where(o => o.Kind == OutcomeKind.Failed))
{
    Console.WriteLine($"failed: {outcome.Name}\n{outcome.Message}\n{outcome.StackTrace}");
}

Console.WriteLine($"{outcomes.Count - failed - skipped} passed, {failed} failed, {skipped} skipped in {watch.Elapsed.TotalSeconds:F0} s");
return failed == 0 ? 0 : 1;

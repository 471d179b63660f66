using SharpFuzz;

// usage: MicroVm.Instrument ASSEMBLY..: rewrites each in place, so that its code notes the edges that it runs (tests/Shared/Fuzz/CoverageMap.cs),
// and puts beside it what the rewritten code calls.
foreach (string assembly in args)
{
    int types = Fuzzer.Instrument(assembly, static _ => true, Options.Value).Count();
    Console.WriteLine($"{Path.GetFileName(assembly)}: {types} types");
    File.Copy(typeof(SharpFuzz.Common.Trace).Assembly.Location, Path.Combine(Path.GetDirectoryName(Path.GetFullPath(assembly))!, "SharpFuzz.Common.dll"), overwrite: true);
}
